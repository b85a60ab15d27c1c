"""Notices fetches whose worker has gone: their beat stands still by this process's own clock."""

import time
from uuid import UUID

from webapp.adapters import lifecycle
from webapp.adapters.models import BaseModel, BaseStatus


class Silence:
    """Remembers when each counter was seen to move last. Wall clocks of other machines play no part."""

    def __init__(self) -> None:
        self._seen: dict[UUID, tuple[tuple[int, int], float]] = {}

    def interrupt_lost(self, *, lease: float) -> int:
        """Give back what has not moved for `lease` seconds; returns how many."""
        now = time.monotonic()
        running = BaseModel.objects.filter(status=BaseStatus.FETCHING, fetch_runs=True)
        pulses = {pk: (number, beat) for pk, number, beat in running.values_list("pk", "fetch", "heartbeat")}
        for pk, pulse in pulses.items():
            if pk not in self._seen or self._seen[pk][0] != pulse:
                self._seen[pk] = (pulse, now)
        self._seen = {pk: seen for pk, seen in self._seen.items() if pk in pulses}
        silent = [(pk, pulse) for pk, (pulse, since) in self._seen.items() if now - since >= lease]
        return sum(lifecycle.interrupt(pk, number, seen_beat=beat) for pk, (number, beat) in silent)


silence = Silence()
