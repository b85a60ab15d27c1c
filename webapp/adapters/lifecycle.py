"""Every change of a base model's status, each a conditional UPDATE that says whether it won."""

from typing import Any
from uuid import UUID

from django.db.models import F

from webapp.adapters.models import BaseModel, BaseModelQuerySet, BaseStatus

TEXT_LENGTH = 500


def begin(base_id: UUID) -> int | None:
    """Take a fetch that nobody runs. Its number, None when another process got there first."""
    waiting = BaseModel.objects.filter(pk=base_id, status=BaseStatus.FETCHING, fetch_runs=False)
    if not waiting.update(fetch_runs=True, fetch=F("fetch") + 1):
        return None
    return BaseModel.objects.values_list("fetch", flat=True).get(pk=base_id)


def beat(base_id: UUID, fetch: int) -> bool:
    """A sign of life; False when this fetch has lost its place."""
    return bool(_held(base_id, fetch).update(heartbeat=F("heartbeat") + 1))


def report(base_id: UUID, fetch: int, *, done: int, of: int, what: str) -> bool:
    """How far it is; also a sign of life."""
    progress = {"fetched_bytes": max(done, 0), "total_bytes": max(of, 0), "status_text": what[:TEXT_LENGTH]}
    return bool(_held(base_id, fetch).update(heartbeat=F("heartbeat") + 1, **progress))


def finish(base_id: UUID, fetch: int, *, path: str, facts: dict[str, Any]) -> bool:
    """fetching → ready. The immutable revision is taken from the facts."""
    found = {"path": path, "facts": facts, "status_text": ""}
    if facts.get("revision"):
        found["revision"] = str(facts["revision"])[:80]
    return bool(_held(base_id, fetch).update(status=BaseStatus.READY, fetch_runs=False, **found))


def fail(base_id: UUID, fetch: int, text: str) -> bool:
    """fetching → failed, with what happened and what to do."""
    ended = {"status": BaseStatus.FAILED, "fetch_runs": False}
    return bool(_held(base_id, fetch).update(status_text=text[:TEXT_LENGTH], **ended))


def interrupt(base_id: UUID, fetch: int, *, seen_beat: int) -> bool:
    """Give a fetch back, when whoever took it has given no sign of life since `seen_beat`."""
    return bool(_held(base_id, fetch).filter(heartbeat=seen_beat).update(fetch_runs=False))


def give_back(base_id: UUID, fetch: int) -> bool:
    """By whoever holds it and cannot go on."""
    return bool(_held(base_id, fetch).update(fetch_runs=False))


def retry(base_id: UUID) -> bool:
    """failed → fetching."""
    again = {
        "status": BaseStatus.FETCHING,
        "fetch_runs": False,
        "fetched_bytes": 0,
        "total_bytes": 0,
        "status_text": "",
    }
    return bool(BaseModel.objects.filter(pk=base_id, status=BaseStatus.FAILED).update(**again))


def _held(base_id: UUID, fetch: int) -> BaseModelQuerySet:
    """The base model, as long as this fetch is its newest and has not ended."""
    return BaseModel.objects.filter(pk=base_id, status=BaseStatus.FETCHING, fetch_runs=True, fetch=fetch)
