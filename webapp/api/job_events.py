"""What happened to a job, as the wire's events: sentences and figures, the newest first."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

from webapp.api.fields import bad
from webapp.api.names import EVENT, HEX
from webapp.api.paging import Asked
from webapp.api.wire import timestamp
from webapp.jobs.models import Job, JobEvent
from webapp.jobs.standing import PHASES

LEVELS = {"warning": "warn", "error": "error"}
STATUSES = {
    "running": "The job is running.",
    "succeeded": "The job has succeeded.",
    "cancelled": "The job was cancelled.",
    "queued": "The job is queued again.",
}
WISHES = {"cancel": "The job is to be cancelled.", "pause": "The job is to pause.", "resume": "The job may go on."}
Told = tuple[str, dict[str, Any] | None]  # the sentence, and figures where it has any


def events_of(job: Job, page: Asked) -> tuple[list[dict[str, Any]], bool]:
    """A page of them, and whether there are more. The oldest of all tells that the job was created."""
    before = _number(job, page.after)
    if before == 0 and page.newest_first:
        return [], False
    if page.newest_first:
        rows = job.events.order_by("-seq")
        rows = rows if before is None else rows.filter(seq__lt=before)
        found = [_event(job, one) for one in rows[: page.limit + 1]]
        found = found if len(found) > page.limit else [*found, _created(job)]
    else:
        found = [] if before is not None else [_created(job)]
        found += [_event(job, one) for one in job.events.filter(seq__gt=before or 0).order_by("seq")[: page.limit + 1]]
    return found[: page.limit], len(found) > page.limit


def _number(job: Job, after: str) -> int | None:
    """The number of the event `after`; ids are the job's and the number."""
    if not after:
        return None
    whose, _, number = after.removeprefix(EVENT).partition("-")
    mine = HEX.fullmatch(whose) and UUID(whose) == job.pk
    if not (after.startswith(EVENT) and mine and number.isascii() and number.isdigit() and len(number) < 19):
        bad("after", "`after` is the id of no event of this job.")
    return int(number)


def _created(job: Job) -> dict[str, Any]:
    return _object(job, 0, timestamp(job.created_at), ("The job was created.", None))


def _event(job: Job, event: JobEvent) -> dict[str, Any]:
    told = TELLERS.get(event.kind, _other)(event.data)
    level = LEVELS.get(event.data.get("level", ""), "info") if event.kind == "log" else "info"
    if event.kind == "failed" or event.data.get("to") == "failed":
        level = "error"
    return _object(job, event.seq, timestamp(event.at), told, level=level)


def _object(job: Job, number: int, at: int, told: Told, *, level: str = "info") -> dict[str, Any]:
    message, figures = told
    ids = {"id": f"{EVENT}{job.pk.hex}-{number}", "object": "fine_tuning.job.event", "created_at": at}
    kind = {"type": "message", "data": {}} if figures is None else {"type": "metrics", "data": figures}
    return {**ids, "level": level, "message": message, **kind}


def _status(data: dict[str, Any]) -> Told:
    if data.get("to") == "failed":
        return f"The job failed: {data.get('text', '')} {data.get('fix', '')}".strip(), None
    if data.get("to") == "queued":
        why = data.get("text") or {"paused": "It is paused.", "preempted": "Its worker shuts down."}.get(
            data.get("reason", ""), ""
        )
        return f"{STATUSES['queued']} {why}".strip(), None
    return STATUSES.get(data.get("to", ""), "The job changed."), None


def _progress(data: dict[str, Any]) -> Told:
    figures = {"step": data["step"], "total_steps": data["of"], "train_loss": data["loss"]}
    if data.get("accuracy") is not None:
        figures["train_mean_token_accuracy"] = data["accuracy"]
    more = ("learning_rate", "grad_norm", "trained_tokens", "tokens_per_second", "seconds_left", "memory_bytes")
    figures |= {name: data[name] for name in more if name in data}
    return f"Step {data['step']}/{data['of']}: training loss={data['loss']:.4f}", figures


def _evaluated(data: dict[str, Any]) -> Told:
    """All held-out rows are measured each time, so `full_` and the plain names are the same."""
    scores = {"valid_loss": data["loss"], "valid_mean_token_accuracy": data["accuracy"]}
    figures = {"step": data["step"], **scores, **{f"full_{name}": value for name, value in scores.items()}}
    more = ("rows", "perplexity", "margin", "general_kl", "general_perplexity")
    figures |= {name: data[name] for name in more if data.get(name) is not None}
    return f"Step {data['step']}: validation loss={data['loss']:.4f}", figures


def _sample(data: dict[str, Any]) -> Told:
    return f"Step {data['step']}: {data['prompt']} → {data['completion']}", None


def _other(data: dict[str, Any]) -> Told:
    return str(data.get("text") or data.get("name") or "Something happened."), None


TELLERS: dict[str, Callable[[dict[str, Any]], Told]] = {
    "status": _status,
    "wish": lambda data: (WISHES.get(data.get("wish", ""), "Something is wished."), None),
    "phase": lambda data: (f"{PHASES.get(data.get('name', ''), PHASES[''])}.", None),
    "progress": _progress,
    "evaluated": _evaluated,
    "sample": _sample,
    "memory": lambda data: (f"At most {data['peak_bytes'] / 1e9:.1f} GB of memory were held.", None),
    "checkpoint": lambda data: (f"A checkpoint to go on from was kept at step {data['step']}.", None),
    "finished": lambda data: ("The adapter is written.", None),
}
