"""Doors of the default worker: inspect an upload, survey what is ready, and the bells that ask for it."""

import logging
from uuid import UUID, uuid4

from celery import shared_task
from django.db import DatabaseError

from webapp.common import doorbell
from webapp.datasets import comparisons, inspection, lifecycle, survey_lifecycle, surveying

logger = logging.getLogger(__name__)


@shared_task(name="datasets.inspect")
def inspect(version_id: str) -> None:
    number = lifecycle.begin(UUID(version_id))
    if number is not None:
        carry_through(UUID(version_id), number)
        ring_for_survey(UUID(version_id))


def carry_through(version_id: UUID, number: int) -> None:
    """Inspect; whatever goes wrong in our own code ends the inspection with a mark to look for in the log."""
    try:
        inspection.inspect_version(version_id, number)
    except DatabaseError:  # nothing can be written down now; once it stands still for a lease it is begun again
        raise
    except Exception:
        mark = uuid4().hex[:8]
        logger.exception("dataset version %s: the inspection failed (error %s)", version_id, mark)
        lifecycle.reject(version_id, number, inspection.broken(mark))


def ring(version_id: UUID) -> bool:
    return doorbell.ring(inspect, version_id, what="dataset version")


@shared_task(name="datasets.survey")
def survey(version_id: str) -> None:
    pk = UUID(version_id)
    number = survey_lifecycle.begin(pk)
    if number is None:
        return
    try:
        surveying.survey_version(pk, number)
    except DatabaseError:  # as above
        raise
    except Exception:
        mark = uuid4().hex[:8]
        logger.exception("dataset version %s: the survey failed (error %s)", pk, mark)
        survey_lifecycle.fail(pk, number, surveying.broken(mark))


def ring_for_survey(version_id: UUID) -> bool:
    return doorbell.ring(survey, version_id, what="survey of dataset version")


@shared_task(name="datasets.compare")
def compare(older_id: str, newer_id: str) -> None:
    try:
        comparisons.compare_versions(UUID(older_id), UUID(newer_id))
    except DatabaseError:  # as above; the page that waits rings again
        raise
    except Exception:
        mark = uuid4().hex[:8]
        logger.exception("versions %s and %s: the comparison failed (error %s)", older_id, newer_id, mark)
        comparisons.keep_failure(UUID(older_id), UUID(newer_id), comparisons.broken(mark))


def ring_for_comparison(older_id: UUID, newer_id: UUID) -> bool:
    return doorbell.ring(compare, older_id, newer_id, what="comparison of dataset version")
