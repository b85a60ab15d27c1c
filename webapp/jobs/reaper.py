"""Finds attempts and workers that gave no sign of life for a lease, and rings the doorbell for jobs that wait."""

import logging
from collections.abc import Mapping
from typing import Generic, TypeVar
from uuid import UUID

from django.conf import settings
from django.db.models import F

from webapp.adapters.tasks import requeue_fetches
from webapp.datasets.tasks import requeue_inspections
from webapp.jobs import lifecycle
from webapp.jobs.doorbell import ring
from webapp.jobs.models import Attempt, Job, JobStatus, Worker

logger = logging.getLogger(__name__)

RING_ANYWAY_SECONDS = 30.0  # also when every worker looks busy


K = TypeVar("K")


class Watch(Generic[K]):
    """How long counters have stood still, as watched by oneself on one's own monotonic clock.

    No other machine's clock matters. Time in which nobody looked counts for little: after the reaper, the database or
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


class Reaper:
    """One process's watch over all attempts and workers. Several may run: the conditional updates decide."""

    def __init__(self) -> None:
        self.attempts: Watch[int] = Watch(settings.LEASE_SECONDS)
        self.workers: Watch[UUID] = Watch(settings.LEASE_SECONDS)
        self._rung_at = float("-inf")

    def reconcile(self, now: float) -> None:
        """One look at everything; `now` is this process's monotonic clock."""
        self._requeue_lost_attempts(now)
        self._mark_silent_workers(now)
        self._ring_for_waiting_jobs(now)
        requeue_inspections()
        requeue_fetches()

    def _requeue_lost_attempts(self, now: float) -> None:
        running = Attempt.objects.filter(job__status=JobStatus.RUNNING, number=F("job__attempt_number"))
        attempts = {attempt.pk: attempt for attempt in running}
        for key in self.attempts.overdue({pk: one.heartbeat for pk, one in attempts.items()}, now):
            text = f"The worker gave no sign of life for {settings.LEASE_SECONDS:g} seconds."
            try:
                lifecycle.requeue_interrupted(attempts[key], text, outcome="lost")
                logger.warning("%s is lost", attempts[key])
            except lifecycle.LeaseLost:
                logger.info("%s: somebody else saw to it", attempts[key])

    def _mark_silent_workers(self, now: float) -> None:
        beats = dict(Worker.objects.live().values_list("pk", "beat"))
        for key in self.workers.overdue(beats, now):
            Worker.objects.filter(pk=key, beat=beats[key]).update(stopped=True)

    def _ring_for_waiting_jobs(self, now: float) -> None:
        if not Job.objects.claimable().exists():
            return
        busy = Attempt.objects.filter(ended_at=None, job__status=JobStatus.RUNNING).values("worker")
        if (
            Worker.objects.filter(stopped=False).exclude(pk__in=busy).exists()
            or now - self._rung_at >= RING_ANYWAY_SECONDS
        ):
            self._rung_at = now
            ring()
