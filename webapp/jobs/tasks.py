"""The door of the gpu workers: carry the next job through."""

import logging
from contextlib import suppress

from celery import shared_task

from webapp.common.errors import UserError
from webapp.jobs import lifecycle
from webapp.jobs.claiming import claim_next
from webapp.jobs.doorbell import ring
from webapp.jobs.models import Attempt, Job
from webapp.jobs.supervisor import supervise
from webapp.jobs.worker_process import is_going, this_worker

logger = logging.getLogger(__name__)


@shared_task(name="jobs.work")
def work() -> None:
    """The doorbell rang: carry the next job through, then ring for the one after it."""
    if is_going() or not (attempt := claim_next(this_worker())):
        return
    carry_through(attempt)
    if Job.objects.claimable().exists():
        ring()


def carry_through(attempt: Attempt) -> None:
    """Supervise; whatever goes wrong in our own code ends the job with a number to look for in the log."""
    name = f"{attempt.job_id}/a{attempt.number}"
    logger.info("job %s starts", name)
    try:
        supervise(attempt, is_stopping=is_going)
    except UserError as error:
        _give_up(attempt, error.text, error.fix)
    except Exception:
        logger.exception("job %s: the supervisor failed", name)
        _give_up(attempt, "Something went wrong on our side.", f"The server's log says more: {name}.")
    if job := Job.objects.filter(pk=attempt.job_id).first():
        logger.info("job %s has ended; the job is %s%s", name, job.status, f": {job.reason_text}" * bool(job.reason))


def _give_up(attempt: Attempt, text: str, fix: str) -> None:
    with suppress(lifecycle.LeaseLost):  # then somebody else has the job and will do better
        lifecycle.fail(attempt, "internal", text, fix)
