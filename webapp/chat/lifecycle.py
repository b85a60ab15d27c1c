"""What chat workers report: every status change of a completion, each a conditional UPDATE that may lose its race."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.db.models import F, QuerySet

from webapp.chat.models import ACTIVE, Completion, CompletionStatus, Turn

WORKER_GONE = "The chat worker was restarted."


def claim(turn_id: UUID, *, worker: str) -> list[Completion]:
    """queued → streaming for those completions of a turn that nobody else has taken."""
    waiting = Completion.objects.filter(turn_id=turn_id, status=CompletionStatus.QUEUED)
    won = [pk for pk in waiting.values_list("pk", flat=True) if _take(pk, worker)]
    return list(Completion.objects.filter(pk__in=won).select_related("adapter"))


def _take(completion_id: UUID, worker: str) -> bool:
    waiting = Completion.objects.filter(pk=completion_id, status=CompletionStatus.QUEUED)
    return waiting.update(status=CompletionStatus.STREAMING, worker=worker, beat=1) == 1


def keep_text(completion_id: UUID, text: str) -> bool:
    """What has been written so far, for pages that load now and for the day Redis is lost."""
    return _streaming(completion_id).update(text=text, beat=F("beat") + 1) == 1


def beat(turn_id: UUID, *, worker: str) -> None:
    """A sign of life for all that this worker is writing in a turn."""
    writing = Completion.objects.filter(turn_id=turn_id, worker=worker, status=CompletionStatus.STREAMING)
    writing.update(beat=F("beat") + 1)


def finish(completion_id: UUID, text: str, numbers: dict[str, Any]) -> bool:
    """streaming → finished."""
    changed = _streaming(completion_id).update(status=CompletionStatus.FINISHED, text=text, numbers=numbers)
    return changed == 1


def stop(completion_id: UUID, text: str, numbers: dict[str, Any]) -> bool:
    """streaming → stopped; what was written stays."""
    changed = _streaming(completion_id).update(status=CompletionStatus.STOPPED, text=text, numbers=numbers)
    return changed == 1


def fail(completion_id: UUID, error: str, text: str = "") -> bool:
    """streaming → failed; what was written stays."""
    changed = _streaming(completion_id).update(status=CompletionStatus.FAILED, error=error[:500], text=text)
    return changed == 1


def stop_queued(turn_id: UUID) -> int:
    """queued → stopped: nobody has begun, so nobody needs to be asked."""
    waiting = Completion.objects.filter(turn_id=turn_id, status=CompletionStatus.QUEUED)
    return waiting.update(status=CompletionStatus.STOPPED)


def stop_unbegun(turn_id: UUID) -> int:
    """streaming → stopped for completions without a word yet: their worker is still loading the model."""
    unbegun = Completion.objects.filter(turn_id=turn_id, status=CompletionStatus.STREAMING, text="")
    return unbegun.update(status=CompletionStatus.STOPPED)


def fail_of_worker(worker: str) -> int:
    """streaming → failed for all that an earlier life of this worker was writing."""
    lost = Completion.objects.filter(worker=worker, status=CompletionStatus.STREAMING)
    return lost.update(status=CompletionStatus.FAILED, error=WORKER_GONE)


def fail_silent(completion_id: UUID, *, seen_beat: int) -> bool:
    """streaming → failed, unless its worker has given a sign of life since `seen_beat`."""
    silent = _streaming(completion_id).filter(beat=seen_beat)
    return silent.update(status=CompletionStatus.FAILED, error=WORKER_GONE) == 1


def beats() -> dict[UUID, int]:
    """The counter of every completion that is being written."""
    return dict(Completion.objects.filter(status=CompletionStatus.STREAMING).values_list("pk", "beat"))


def waiting_turns() -> list[UUID]:
    """Turns with an answer that no worker has begun, oldest first."""
    turns = Turn.objects.filter(completions__status=CompletionStatus.QUEUED).order_by("created_at")
    return list(dict.fromkeys(turns.values_list("pk", flat=True)))


def stop_requested(turn_id: UUID) -> bool:
    """Whether its person wants it to end; deleting the conversation says the same."""
    wish = Turn.objects.filter(pk=turn_id).values_list("stop_requested", flat=True).first()
    return wish is not False


def has_active(conversation_id: UUID) -> bool:
    return Completion.objects.filter(turn__conversation_id=conversation_id, status__in=ACTIVE).exists()


def _streaming(completion_id: UUID) -> QuerySet[Completion]:
    return Completion.objects.filter(pk=completion_id, status=CompletionStatus.STREAMING)
