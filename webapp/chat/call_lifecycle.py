"""What happens to calls: taken by one worker, alive while it beats, failed when it stops, gone at the end."""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta
from uuid import UUID

from django.db import connection
from django.db.models import F
from django.utils import timezone

from webapp.adapters.models import Adapter, BaseModel
from webapp.chat.lifecycle import WORKER_GONE
from webapp.chat.models import Call, CompletionStatus

QUEUED, STREAMING = CompletionStatus.QUEUED.value, CompletionStatus.STREAMING.value
FORGOTTEN_AFTER = timedelta(hours=1)  # a failed call that nobody came back for
# Every first token waits for this: one statement that takes a call and tells what it is.
TAKE = f"""UPDATE {Call._meta.db_table} SET status = %s, worker = %s, beat = 1
           WHERE id = %s AND status = %s RETURNING *"""  # noqa: S608 - the table's own name
UNHEARD_AFTER = timedelta(minutes=5)  # less than clients wait, so that they learn why
UNHEARD = "No chat worker took this request within five minutes."


def claim(call_id: UUID, *, worker: str) -> Call | None:
    """queued → streaming; None when another worker has it, or nobody waits any more."""
    key = Call._meta.pk.get_db_prep_value(call_id, connection)
    # All of it is read: SQLite's writers wait as long as there may be another row.
    found = list(Call.objects.raw(TAKE, [STREAMING, worker, key, QUEUED]))
    try:
        for call in found:
            call.base_model = _base(call.base_model_id)
            return call if call.adapter_id is None or call.adapter else None
    except (BaseModel.DoesNotExist, Adapter.DoesNotExist):  # deleted this moment, and the call with it
        pass
    return None


def _base(base_id: UUID) -> BaseModel:
    """A base model that is ready stays as it is, so it is read once."""
    base = _ready.get(base_id) or BaseModel.objects.get(pk=base_id)
    if base.is_ready:
        _ready[base_id] = base
    return base


_ready: dict[UUID, BaseModel] = {}


def beat(call_ids: Collection[UUID]) -> set[UUID]:
    """A sign of life for all of these; returns those that are still wanted."""
    wanted = Call.objects.filter(pk__in=call_ids, status=CompletionStatus.STREAMING)
    wanted.update(beat=F("beat") + 1)
    return set(wanted.values_list("pk", flat=True))


def end(call_id: UUID) -> None:
    """Its worker has said the last word. One that was failed meanwhile stays, so that its asker learns why."""
    Call.objects.filter(pk=call_id, status=CompletionStatus.STREAMING).delete()


def forget(call_id: UUID) -> None:
    """Nobody waits for it any more."""
    Call.objects.filter(pk=call_id).delete()


def fail_of_worker(worker: str) -> int:
    """streaming → failed for all that an earlier life of this worker was answering."""
    lost = Call.objects.filter(worker=worker, status=CompletionStatus.STREAMING)
    return lost.update(status=CompletionStatus.FAILED, error=WORKER_GONE)


def fail_silent(call_id: UUID, *, seen_beat: int) -> bool:
    """streaming → failed, unless its worker has given a sign of life since `seen_beat`."""
    silent = Call.objects.filter(pk=call_id, status=CompletionStatus.STREAMING, beat=seen_beat)
    return silent.update(status=CompletionStatus.FAILED, error=WORKER_GONE) == 1


def fail_unheard() -> int:
    """queued → failed for those that no worker came for: none lives, or all of them are full."""
    unheard = Call.objects.filter(status=CompletionStatus.QUEUED, created_at__lt=timezone.now() - UNHEARD_AFTER)
    return unheard.update(status=CompletionStatus.FAILED, error=UNHEARD)


def beats() -> dict[UUID, int]:
    return dict(Call.objects.filter(status=CompletionStatus.STREAMING).values_list("pk", "beat"))


def waiting() -> list[UUID]:
    """Calls that no worker has begun, oldest first."""
    return list(Call.objects.filter(status=CompletionStatus.QUEUED).values_list("pk", flat=True))


def forget_old() -> None:
    Call.objects.filter(status=CompletionStatus.FAILED, created_at__lt=timezone.now() - FORGOTTEN_AFTER).delete()
