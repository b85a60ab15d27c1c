"""The scheduler's look at answers: those whose worker has gone fail, and those nobody has begun are rung for again."""

from uuid import UUID

from django.conf import settings

from webapp.chat import lifecycle, tasks
from webapp.common.watch import Bell, Watch


class Answers:
    """One process's watch over all answers."""

    def __init__(self) -> None:
        self._beats: Watch[UUID] = Watch(settings.LEASE_SECONDS)
        self._bell: Bell[UUID] = Bell(tasks.ring)

    def reconcile(self, now: float) -> None:
        """One look; `now` is this process's monotonic clock."""
        beats = lifecycle.beats()
        for completion_id in self._beats.overdue(beats, now):
            lifecycle.fail_silent(completion_id, seen_beat=beats[completion_id])
        self._bell.ring_for(lifecycle.waiting_turns(), now)
