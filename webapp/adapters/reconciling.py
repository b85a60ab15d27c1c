"""The scheduler's look at fetches: what a lost worker held is given back, and what waits is rung for again."""

from uuid import UUID

from django.conf import settings

from webapp.adapters import lifecycle, tasks
from webapp.adapters.models import BaseModel, BaseStatus
from webapp.common.watch import Bell, Watch


class Fetches:
    """One process's watch over all fetches of base models."""

    def __init__(self) -> None:
        self._beats: Watch[tuple[UUID, int]] = Watch(settings.LEASE_SECONDS)
        self._bell: Bell[UUID] = Bell(tasks.ring)

    def reconcile(self, now: float) -> None:
        """One look; `now` is this process's monotonic clock."""
        fetching = BaseModel.objects.filter(status=BaseStatus.FETCHING)
        running = fetching.filter(fetch_runs=True).values_list("pk", "fetch", "heartbeat")
        beats = {(pk, number): beat for pk, number, beat in running}
        for pk, number in self._beats.overdue(beats, now):
            lifecycle.interrupt(pk, number, seen_beat=beats[pk, number])
        waiting = fetching.filter(fetch_runs=False).values_list("pk", flat=True)
        self._bell.ring_for(list(waiting), now)
