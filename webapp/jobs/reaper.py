"""Finds attempts and workers that gave no sign of life for a lease, and rings the doorbell for jobs that wait."""

import logging
from uuid import UUID

from django.conf import settings
from django.db.models import F, Q

from webapp.common.watch import Watch
from webapp.datasets.models import DatasetVersion, VersionStatus
from webapp.jobs import lifecycle
from webapp.jobs.doorbell import ring
from webapp.jobs.files import FILES, refusal
from webapp.jobs.models import Attempt, Job, JobStatus, Worker

logger = logging.getLogger(__name__)

RING_ANYWAY_SECONDS = 30.0  # also when every worker looks busy


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
        self._fail_jobs_without_data()
        self._ring_for_waiting_jobs(now)

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

    def _fail_jobs_without_data(self) -> None:
        """Jobs that were submitted while their files were being checked, and the check refused one."""
        refused = DatasetVersion.objects.filter(status=VersionStatus.REJECTED)
        stuck = Job.objects.filter(Q(dataset_version__in=refused) | Q(validation_version__in=refused))
        for job in stuck.filter(status=JobStatus.QUEUED).select_related(*FILES):
            lifecycle.fail_waiting(job.pk, *refusal(job))

    def _ring_for_waiting_jobs(self, now: float) -> None:
        if not Job.objects.claimable().exists():
            return
        if Worker.objects.live().idle().exists() or now - self._rung_at >= RING_ANYWAY_SECONDS:
            self._rung_at = now
            ring()
