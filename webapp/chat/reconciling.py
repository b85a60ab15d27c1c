"""The scheduler's look at answers: those whose worker has gone fail, and those nobody has begun are rung for again."""

from uuid import UUID

from django.conf import settings

from webapp.chat import call_lifecycle, lifecycle, tasks
from webapp.common.watch import Bell, Watch


class Answers:
    """One process's watch over all answers."""

    def __init__(self) -> None:
        self._beats: Watch[UUID] = Watch(settings.LEASE_SECONDS)
        self._bell: Bell[UUID] = Bell(tasks.ring)
        self._call_beats: Watch[UUID] = Watch(settings.LEASE_SECONDS)
        self._call_bell: Bell[UUID] = Bell(tasks.ring_call)

    def reconcile(self, now: float) -> None:
        """One look; `now` is this process's monotonic clock."""
        beats = lifecycle.beats()
        for completion_id in self._beats.overdue(beats, now):
            lifecycle.fail_silent(completion_id, seen_beat=beats[completion_id])
        self._bell.ring_for(lifecycle.waiting_turns(), now)
        self._reconcile_calls(now)

    def _reconcile_calls(self, now: float) -> None:
        beats = call_lifecycle.beats()
        for call_id in self._call_beats.overdue(beats, now):
            call_lifecycle.fail_silent(call_id, seen_beat=beats[call_id])
        call_lifecycle.fail_unheard()
        call_lifecycle.forget_old()
        self._call_bell.ring_for(call_lifecycle.waiting(), now)
