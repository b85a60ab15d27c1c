"""What workers report: one function per change of a job's status, each a conditional UPDATE whose row count decides."""

from collections.abc import Iterable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Literal
from uuid import UUID, uuid5

from django.db import transaction
from django.db.models import F, Max
from django.db.models.functions import Coalesce, Now
from django.utils import timezone

from trainer import events
from webapp.adapters.models import Adapter
from webapp.adapters.publishing import Snapshot, create_adapter, create_checkpoint
from webapp.common import streams
from webapp.jobs.models import Attempt, FailureReason, Job, JobEvent, JobQuerySet, JobStatus, Worker

FRUITLESS_LIMIT = 3  # interruptions in a row without a new checkpoint
BACK_OFF_SECONDS = 5  # times 3 for each of them


def stream_of(job_id: UUID) -> str:
    """The name of the stream whose entries tell pages to look at the job's events again."""
    return f"job:{job_id}"


EventRow = tuple[str, dict[str, Any]]
Wish = Literal["cancel", "pause", ""]


class LeaseLost(Exception):
    """The job is no longer this attempt's: kill the child, touch nothing."""


def claim(job_id: UUID, worker: Worker) -> Attempt | None:
    """queued -> running, with a new attempt. None when the job is not to be had: somebody else was first."""
    with transaction.atomic():
        moved = _change(
            job_id,
            Job.objects.claimable(),
            [_status(JobStatus.QUEUED, JobStatus.RUNNING, actor=worker.name)],
            attempt_number=F("attempt_number") + 1,
            status=JobStatus.RUNNING,
            phase="",
            not_before=None,
            started_at=Coalesce(F("started_at"), Now()),
        )
        if moved is None:
            return None
        return Attempt.objects.create(job_id=job_id, number=moved.attempt_number, worker=worker)


def record_events(attempt: Attempt, batch: list[events.Event]) -> int:
    """Keep what the trainer reported, and what the newest of it says on the job's row. Returns the last event's number.

    Raises LeaseLost.
    """
    rows = [(event.kind, _event_data(event)) for event in batch]
    values: dict[str, Any] = {}
    for event in batch:
        values |= _newest(event)
    with transaction.atomic():
        moved = _change(attempt.job_id, _held(attempt), rows, **values)
        if moved is None:
            raise LeaseLost
        for event in batch:
            if isinstance(event, events.Checkpoint):
                found = Attempt.objects.filter(pk=attempt.pk)
                found.update(checkpoint_step=event.step, checkpoint_folder=event.folder)
    return moved.last_seq


def heartbeat(attempt: Attempt) -> None:
    """A sign of life. Raises LeaseLost."""
    held = Attempt.objects.filter(pk=attempt.pk, job__in=_held(attempt))
    if not held.update(heartbeat=F("heartbeat") + 1, seen_at=timezone.now()):
        raise LeaseLost


def wish_of(attempt: Attempt) -> Wish:
    """What somebody asked of the running job: its end counts more than a pause. Raises LeaseLost."""
    wished = _held(attempt).values_list("cancel_requested", "paused").first()
    if wished is None:
        raise LeaseLost
    cancel, pause = wished
    return "cancel" if cancel else "pause" if pause else ""


def is_cancel_wished(attempt: Attempt) -> bool:
    """Whether somebody asked for the job's end. Raises LeaseLost."""
    return wish_of(attempt) == "cancel"


def adapter_id_of(job_id: UUID) -> UUID:
    """The adapter a job makes has one id from the start, so publishing twice cannot make two."""
    return uuid5(job_id, "adapter")


def succeed(attempt: Attempt, folder: Path, facts: dict[str, Any], checkpoints: Iterable[Snapshot] = ()) -> Adapter:
    """running -> succeeded: the verified `folder` of the attempt becomes the adapter, in one transaction.

    So do `checkpoints`, what of them is there.

    Raises LeaseLost, also when the job's end was asked for before: then nothing becomes visible.
    """
    job = Job.objects.select_related("base_model", "dataset_version", "team", "created_by").get(pk=attempt.job_id)
    with transaction.atomic():
        # First the fence, which locks the row; only its holder may rename files into place.
        moved = _change(
            job.pk,
            _held(attempt).filter(cancel_requested=False),
            [_status(JobStatus.RUNNING, JobStatus.SUCCEEDED)],
            **_ending(JobStatus.SUCCEEDED),
        )
        if moved is None:
            raise LeaseLost
        adapter = create_adapter(
            adapter_id=adapter_id_of(job.pk),
            folder=folder,
            team=job.team,
            name=job.name,
            base_model=job.base_model,
            dataset_version=job.dataset_version,
            created_by=job.created_by,
            spec=job.spec,
            metrics=facts,
        )
        for snapshot in checkpoints:
            create_checkpoint(adapter, snapshot)
        Job.objects.filter(pk=job.pk).update(adapter=adapter)
        _end_attempt(attempt, "succeeded")
    return adapter


def fail(attempt: Attempt, reason: str, text: str, fix: str = "") -> None:
    """running -> failed, with a reason a person can act on. Raises LeaseLost."""
    known = reason if reason in FailureReason.values else FailureReason.INTERNAL
    row = _status(JobStatus.RUNNING, JobStatus.FAILED, reason=known, text=text, fix=fix)
    said = {"reason": known, "reason_text": text, "reason_fix": fix}
    _leave(attempt, row, "failed", **_ending(JobStatus.FAILED), **said)


def cancelled(attempt: Attempt, *, forced: bool = False) -> None:
    """running -> cancelled, once the attempt's processes have gone. Raises LeaseLost."""
    row = _status(JobStatus.RUNNING, JobStatus.CANCELLED, reason="forced" if forced else "")
    _leave(attempt, row, "cancelled", **_ending(JobStatus.CANCELLED))


def cancel_queued(job_id: UUID, actor: str) -> bool:
    """queued -> cancelled at once. False when the job has left the queue meanwhile."""
    waiting = Job.objects.filter(status=JobStatus.QUEUED)
    row = _status(JobStatus.QUEUED, JobStatus.CANCELLED, actor=actor)
    with transaction.atomic():
        return _change(job_id, waiting, [row], cancel_requested=True, **_ending(JobStatus.CANCELLED)) is not None


def wish_cancel(job_id: UUID, actor: str) -> bool:
    """Note on a running job that its end is wished; its worker sees to it. False when it is not running (any more)."""
    running = Job.objects.filter(status=JobStatus.RUNNING)
    row = ("wish", {"wish": "cancel", "actor": actor})
    with transaction.atomic():
        return _change(job_id, running, [row], cancel_requested=True) is not None


def pause(job_id: UUID, actor: str) -> bool:
    """Hold a queued job where it is; wish for a pause of a running one. False when it is neither, or held already."""
    open_to_it = Job.objects.unfinished().filter(paused=False, cancel_requested=False)
    row = ("wish", {"wish": "pause", "actor": actor})
    with transaction.atomic():
        return _change(job_id, open_to_it, [row], paused=True) is not None


def resume(job_id: UUID, actor: str) -> bool:
    """Let go of a held job, or take the wish for a pause back. False when there is nothing to take back.

    A trainer that has stopped for the wish meanwhile is queued again, and may be claimed at once.
    """
    held = Job.objects.unfinished().filter(paused=True)
    row = ("wish", {"wish": "resume", "actor": actor})
    with transaction.atomic():
        return _change(job_id, held, [row], paused=False) is not None


def fail_waiting(job_id: UUID, text: str, fix: str) -> bool:
    """queued -> failed, as a file it waited for cannot be used. False when it has left the queue meanwhile."""
    reason = FailureReason.DATASET_INVALID
    row = _status(JobStatus.QUEUED, JobStatus.FAILED, reason=reason, text=text, fix=fix)
    said = {"reason": reason, "reason_text": text, "reason_fix": fix}
    waiting = Job.objects.filter(status=JobStatus.QUEUED)
    with transaction.atomic():
        return _change(job_id, waiting, [row], **_ending(JobStatus.FAILED), **said) is not None


def requeue_paused(attempt: Attempt) -> None:
    """running -> queued because a pause was wished; held there unless the wish was taken back. Raises LeaseLost."""
    _requeue_unharmed(attempt, "paused")


def requeue_preempted(attempt: Attempt) -> None:
    """running -> queued because the worker shuts down. Raises LeaseLost."""
    _requeue_unharmed(attempt, "preempted")


def _requeue_unharmed(attempt: Attempt, why: str) -> None:
    """Back into the queue without penalty or waiting."""
    if _wish_ends_it(attempt):
        return
    row = _status(JobStatus.RUNNING, JobStatus.QUEUED, reason=why)
    _leave(attempt, row, why, status=JobStatus.QUEUED, phase="", not_before=None)


def requeue_interrupted(attempt: Attempt, text: str, *, outcome: str = "interrupted") -> None:
    """running -> queued after a crash, later each time; -> failed when nothing new was saved three times in a row.

    Raises LeaseLost.
    """
    if _wish_ends_it(attempt):
        return
    attempt.refresh_from_db()
    before = Job.objects.values_list("fruitless_attempts", flat=True).get(pk=attempt.job_id)
    # Only what is further than any attempt before has been: a trainer that is asked to stop saves where it resumed.
    earlier = Attempt.objects.filter(job=attempt.job_id, number__lt=attempt.number)
    furthest = earlier.aggregate(step=Max("checkpoint_step"))["step"] or 0
    fruitless = 0 if attempt.checkpoint_step > furthest else before + 1
    if fruitless >= FRUITLESS_LIMIT:
        _give_up(attempt, text, fruitless, outcome)
        return
    wait = BACK_OFF_SECONDS * 3 ** max(fruitless - 1, 0)
    row = _status(JobStatus.RUNNING, JobStatus.QUEUED, reason=outcome, text=text, wait=wait)
    values = {"fruitless_attempts": fruitless, "not_before": timezone.now() + timedelta(seconds=wait)}
    _leave(attempt, row, outcome, status=JobStatus.QUEUED, phase="", **values)


def _give_up(attempt: Attempt, text: str, fruitless: int, outcome: str) -> None:
    reason = FailureReason.INTERRUPTED_TOO_OFTEN
    said = f"The job was interrupted {fruitless} times in a row without a new checkpoint. The last time: {text}"
    fix = "Look at the log for the cause; often the machine has too little memory: lower the batch or the length."
    row = _status(JobStatus.RUNNING, JobStatus.FAILED, reason=reason, text=said, fix=fix)
    values = {"reason": reason, "reason_text": said, "reason_fix": fix, "fruitless_attempts": fruitless}
    _leave(attempt, row, outcome, **_ending(JobStatus.FAILED), **values)


def _wish_ends_it(attempt: Attempt) -> bool:
    """A job whose end is wished is not queued again: the interruption is its end."""
    if not is_cancel_wished(attempt):
        return False
    cancelled(attempt)
    return True


def _held(attempt: Attempt) -> JobQuerySet:
    """The job's row as long as the lease is this attempt's."""
    return Job.objects.filter(pk=attempt.job_id, status=JobStatus.RUNNING, attempt_number=attempt.number)


def _leave(attempt: Attempt, row: EventRow, outcome: str, **values: Any) -> None:
    """End an attempt and its hold on the job."""
    with transaction.atomic():
        if _change(attempt.job_id, _held(attempt), [row], **values) is None:
            raise LeaseLost
        _end_attempt(attempt, outcome)


def _end_attempt(attempt: Attempt, outcome: str) -> None:
    Attempt.objects.filter(pk=attempt.pk).update(outcome=outcome, ended_at=timezone.now())


def _change(job_id: UUID, rows: JobQuerySet, new: list[EventRow], **values: Any) -> Job | None:
    """The one UPDATE of one job, if it is among `rows`, with event rows that follow on without gaps; else None.

    Call it inside a transaction. The UPDATE holds the row's lock, so the numbers read after it are ours. Pages that
    follow the job are woken once the transaction is through.
    """
    if not rows.filter(pk=job_id).update(last_seq=F("last_seq") + len(new), **values):
        return None
    job = Job.objects.only("last_seq", "attempt_number").get(pk=job_id)
    first = job.last_seq - len(new) + 1
    JobEvent.objects.bulk_create(
        JobEvent(job_id=job_id, seq=seq, attempt_number=job.attempt_number, kind=kind, data=data)
        for seq, (kind, data) in enumerate(new, start=first)
    )
    transaction.on_commit(partial(streams.append, stream_of(job_id), {"seq": str(job.last_seq)}, keep=100))
    return job


def _ending(status: JobStatus) -> dict[str, Any]:
    return {"status": status, "phase": "", "paused": False, "ended_at": timezone.now()}


def _status(before: JobStatus, after: JobStatus, **said: Any) -> EventRow:
    return "status", {"from": before, "to": after} | {key: value for key, value in said.items() if value}


def _event_data(event: events.Event) -> dict[str, Any]:
    # NUL is fine in JSON and refused by PostgreSQL.
    return {key: value.replace("\0", "") if isinstance(value, str) else value for key, value in vars(event).items()}


def _newest(event: events.Event) -> dict[str, Any]:
    """What an event changes on the job's row."""
    if isinstance(event, events.Phase):
        return {"phase": event.name}
    if isinstance(event, events.Progress):
        return {"step": event.step, "steps": event.of, "progress": _event_data(event)}
    return {}
