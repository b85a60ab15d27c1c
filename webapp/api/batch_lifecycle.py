"""What happens to batches: each change is a conditional UPDATE by whoever holds the claim."""

from typing import Any
from uuid import UUID, uuid4

from django.db.models import Case, F, Q, When
from django.utils import timezone

from webapp.api.models import Batch, BatchQuerySet, BatchStatus

MOST_ATTEMPTS = 3  # that answer nothing; as with jobs, what always breaks its worker must not take its place for ever
MOST_STARTS = 10  # in all, whatever they answered: one request that kills its worker does so after each group before it
WORKER_GONE = "The chat worker ended while it ran this batch."
LIVING = (BatchStatus.VALIDATING, BatchStatus.IN_PROGRESS, BatchStatus.FINALIZING, BatchStatus.CANCELLING)


def claim(batch_id: UUID, *, worker: str) -> str:
    """The right to write, as a token; empty when another worker has it, or the batch has ended."""
    token = uuid4().hex
    free = Batch.objects.filter(pk=batch_id, claim="", status__in=LIVING)
    counts = {name: F(name) + 1 for name in ("beat", "attempts", "starts")}
    taken = {"claim": token, "worker": worker} | counts
    return token if free.update(**taken) == 1 else ""


def held(batch_id: UUID, token: str) -> BatchQuerySet:
    return Batch.objects.filter(pk=batch_id, claim=token, status__in=LIVING)


def begin(batch_id: UUID, token: str, *, total: int) -> None:
    """validating → in_progress; one that goes on after its worker's death keeps its time."""
    row = held(batch_id, token)
    row.filter(status=BatchStatus.VALIDATING).update(status=BatchStatus.IN_PROGRESS, in_progress_at=timezone.now())
    row.update(total=total)


def count(batch_id: UUID, token: str, *, completed: int, failed: int) -> bool:
    """Once there is more than before, this attempt is the first again."""
    attempts = Case(When(completed=completed, failed=failed, then=F("attempts")), default=1)
    counted = {"completed": completed, "failed": failed, "attempts": attempts, "beat": F("beat") + 1}
    return held(batch_id, token).update(**counted) == 1


def is_wanted(batch_id: UUID, token: str) -> bool:
    """A sign of life; False once it is cancelled, expired, or somebody else's."""
    row = held(batch_id, token)
    alive = row.update(beat=F("beat") + 1) == 1
    return alive and row.filter(expires_at__gt=timezone.now()).exclude(status=BatchStatus.CANCELLING).exists()


def is_hopeless(batch_id: UUID, token: str) -> bool:
    too_many = Q(attempts__gt=MOST_ATTEMPTS) | Q(starts__gt=MOST_STARTS)
    return held(batch_id, token).filter(too_many).exists()


def refuse(batch_id: UUID, token: str, *, errors: list[dict[str, Any]]) -> bool:
    """Any → failed, without results: its file cannot be run, or they cannot be kept."""
    refused = {"status": BatchStatus.FAILED, "errors": errors, "ended_at": timezone.now(), "claim": ""}
    return held(batch_id, token).update(**refused) == 1


def finalize(batch_id: UUID, token: str) -> bool:
    """in_progress → finalizing; one that is given up may not have come so far. False when it is to be cancelled."""
    row = held(batch_id, token).exclude(status=BatchStatus.CANCELLING)
    return row.update(status=BatchStatus.FINALIZING, finalizing_at=timezone.now()) == 1


def end(batch_id: UUID, token: str, *, status: BatchStatus, found: dict[str, Any]) -> bool:
    """Any → its end, with the files, and the errors of one that failed."""
    return held(batch_id, token).update(status=status, ended_at=timezone.now(), claim="", **found) == 1


def hand_back(batch_id: UUID, token: str) -> None:
    """Another worker may go on with it: this one was told to go, which is no failure."""
    held(batch_id, token).update(claim="", attempts=F("attempts") - 1, starts=F("starts") - 1)


def release_broken(batch_id: UUID, token: str, *, trouble: str) -> None:
    """Another attempt may do better."""
    held(batch_id, token).update(claim="", trouble=trouble[:500])


def release_silent(batch_id: UUID, *, seen_beat: int) -> bool:
    """The same for a worker that gave no sign of life since `seen_beat`."""
    silent = Batch.objects.filter(pk=batch_id, beat=seen_beat, status__in=LIVING)
    return silent.update(claim="", trouble=WORKER_GONE) == 1


def release_of_worker(worker: str) -> int:
    """All that an earlier life of this worker was running."""
    lost = Batch.objects.filter(worker=worker, status__in=LIVING).exclude(claim="")
    return lost.update(claim="", trouble=WORKER_GONE)


def cancel(batch_id: UUID) -> bool:
    row = Batch.objects.filter(pk=batch_id, status__in=(BatchStatus.VALIDATING, BatchStatus.IN_PROGRESS))
    return row.update(status=BatchStatus.CANCELLING, cancelling_at=timezone.now()) == 1


def beats() -> dict[UUID, int]:
    return dict(Batch.objects.filter(status__in=LIVING).exclude(claim="").values_list("pk", "beat"))


def waiting() -> list[UUID]:
    """Batches nobody works on, oldest first, behind them those that broke their workers."""
    rows = Batch.objects.filter(status__in=LIVING, claim="").order_by("attempts", "created_at")
    return list(rows.values_list("pk", flat=True))
