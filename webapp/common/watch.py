"""How one process watches others by its own clock alone: counters that stand still, and bells to ring again."""

from collections.abc import Callable, Collection, Mapping
from typing import Generic, TypeVar

K = TypeVar("K")

RING_AGAIN_SECONDS = 30.0  # a ring waits in the queue of a busy worker, or the broker lost it: nobody can tell


class Watch(Generic[K]):
    """How long counters have stood still, as watched by oneself on one's own monotonic clock.

    No other machine's clock matters. Time in which nobody looked counts for little: after the watcher, the database or
    the whole machine was away, a full lease of watching begins again.
    """

    def __init__(self, lease: float) -> None:
        self.lease = lease
        self._seen: dict[K, tuple[int, float]] = {}  # counter, seconds it has stood still
        self._looked_at: float | None = None

    def overdue(self, counters: Mapping[K, int], now: float) -> set[K]:
        """Keys whose counter has not moved for a lease. Keys that are no longer given are forgotten."""
        passed = 0.0 if self._looked_at is None else min(now - self._looked_at, self.lease / 2)
        self._looked_at = now
        before, self._seen = self._seen, {}
        for key, counter in counters.items():
            last, still = before.get(key, (None, 0.0))
            self._seen[key] = (counter, still + passed if counter == last else 0.0)
        return {key for key, (_, still) in self._seen.items() if still >= self.lease}


class Bell(Generic[K]):
    """Rings for what waits: at once when it is new, then every half minute, so that rings do not pile up.

    Messages carry no time of expiry: it would be a wall clock's time, and a worker whose clock is ahead would drop
    every ring.
    """

    def __init__(self, ring: Callable[[K], bool]) -> None:
        self._ring = ring  # False when the broker is away
        self._rung: dict[K, float] = {}

    def ring_for(self, waiting: Collection[K], now: float) -> int:
        """How many were rung for. What no longer waits is forgotten."""
        self._rung = {key: at for key, at in self._rung.items() if key in waiting}
        due = [key for key in waiting if now - self._rung.get(key, float("-inf")) >= RING_AGAIN_SECONDS]
        for done, key in enumerate(due):
            if not self._ring(key):
                return done  # the next look tries again; each try may have to wait for the broker
            self._rung[key] = now
        return len(due)
