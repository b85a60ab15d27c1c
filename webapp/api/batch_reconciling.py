"""The scheduler's look at batches: those whose worker has gone are free again, and those that wait are rung for."""

from uuid import UUID

from django.conf import settings

from webapp.api import batch_lifecycle, tasks
from webapp.common.watch import Bell, Watch


class Batches:
    """One process's watch over all batches."""

    def __init__(self) -> None:
        self._beats: Watch[UUID] = Watch(settings.LEASE_SECONDS)
        self._bell: Bell[UUID] = Bell(tasks.ring)

    def reconcile(self, now: float) -> None:
        """One look; `now` is this process's monotonic clock."""
        beats = batch_lifecycle.beats()
        for batch_id in self._beats.overdue(beats, now):
            batch_lifecycle.release_silent(batch_id, seen_beat=beats[batch_id])
        self._bell.ring_for(batch_lifecycle.waiting(), now)
