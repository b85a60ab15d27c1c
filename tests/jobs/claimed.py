"""Jobs that a worker has taken."""

from tests.cast import Cast
from tests.make import make_job, make_worker
from webapp.jobs.claiming import claim_next
from webapp.jobs.models import Attempt, Job


def claimed(cast: Cast) -> Attempt:
    """The next attempt at the job there is, else at a new one of the team; by a worker of its own."""
    if not Job.objects.exists():
        make_job(cast.team)
    Job.objects.update(not_before=None)
    attempt = claim_next(make_worker(f"worker-{Attempt.objects.count()}"))
    assert attempt
    return attempt
