"""Doors of the default worker: inspect an upload, survey what is ready, and the bells that ask for it."""

from uuid import UUID

from celery import shared_task

from webapp.common import doorbell
from webapp.common.task_border import marked
from webapp.datasets import comparisons, inspection, lifecycle, survey_lifecycle, surveying


@shared_task(name="datasets.inspect")
def inspect(version_id: str) -> None:
    number = lifecycle.begin(UUID(version_id))
    if number is not None:
        carry_through(UUID(version_id), number)
        ring_for_survey(UUID(version_id))


def carry_through(version_id: UUID, number: int) -> None:
    def reject(mark: str) -> None:
        lifecycle.reject(version_id, number, inspection.broken(mark))

    with marked(f"inspection of dataset version {version_id}", reject):
        inspection.inspect_version(version_id, number)


def ring(version_id: UUID) -> bool:
    return doorbell.ring(inspect, version_id, what="dataset version")


@shared_task(name="datasets.survey")
def survey(version_id: str) -> None:
    pk = UUID(version_id)
    number = survey_lifecycle.begin(pk)
    if number is None:
        return

    def fail(mark: str) -> None:
        survey_lifecycle.fail(pk, number, surveying.broken(mark))

    with marked(f"survey of dataset version {pk}", fail):
        surveying.survey_version(pk, number)


def ring_for_survey(version_id: UUID) -> bool:
    return doorbell.ring(survey, version_id, what="survey of dataset version")


@shared_task(name="datasets.compare")
def compare(older_id: str, newer_id: str) -> None:
    older, newer = UUID(older_id), UUID(newer_id)
    with marked(f"comparison of versions {older} and {newer}", comparisons.kept_changes(older, newer).keep_fault):
        comparisons.compare_versions(older, newer)


def ring_for_comparison(older_id: UUID, newer_id: UUID) -> bool:
    return doorbell.ring(compare, older_id, newer_id, what="comparison of dataset version")
