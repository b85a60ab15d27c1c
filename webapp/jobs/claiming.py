"""Which job a free worker takes: the next in fair order that is still to be had."""

from webapp.jobs import lifecycle
from webapp.jobs.models import Attempt, Job, JobStatus, Worker


def claim_next(worker: Worker) -> Attempt | None:
    """Claim the best queued job. Losing the race for one is normal: then the next is tried. None when none is due."""
    for job_id in Job.objects.claimable().in_fair_order().values_list("pk", flat=True):
        if attempt := lifecycle.claim(job_id, worker):
            return attempt
    return None


def place_in_line(job: Job) -> int:
    """1 for the queued job that starts next; jobs that wait out a back-off keep their place, held ones have none."""
    waiting = Job.objects.filter(status=JobStatus.QUEUED, paused=False).in_fair_order().values_list("pk", flat=True)
    return next((place for place, job_id in enumerate(waiting, start=1) if job_id == job.pk), 1)
