"""Every change of a survey's status, each a conditional UPDATE that says whether it won."""

from typing import Any
from uuid import UUID

from django.db.models import F

from webapp.datasets.models import DatasetVersion, SurveyStatus


def begin(version_id: UUID) -> int | None:
    """waiting → running, of a version that is ready. The survey's number, None when another process was first."""
    fresh = DatasetVersion.objects.ready().filter(pk=version_id, survey_status=SurveyStatus.WAITING)
    if not fresh.update(survey_status=SurveyStatus.RUNNING, survey=F("survey") + 1):
        return None
    return DatasetVersion.objects.values_list("survey", flat=True).get(pk=version_id)


def beat(version_id: UUID, survey: int) -> bool:
    """A sign of life; False when this survey has lost its place."""
    return bool(_held(version_id, survey).update(survey_heartbeat=F("survey_heartbeat") + 1))


def finish(version_id: UUID, survey: int, report: dict[str, Any]) -> bool:
    """running → done."""
    found = {"survey_report": report, "survey_version": report.get("version", 0)}
    return bool(_held(version_id, survey).update(survey_status=SurveyStatus.DONE, **found))


def repeat(version_id: UUID, *, older_than: int) -> bool:
    """done → waiting, of a survey that an older release made; what it found stays until the new one is here.

    Surveys are counted from one again: those that were cut short then say nothing about this one.
    """
    old = DatasetVersion.objects.filter(pk=version_id, survey_status=SurveyStatus.DONE, survey_version__lt=older_than)
    return bool(old.update(survey_status=SurveyStatus.WAITING, survey=0))


def fail(version_id: UUID, survey: int, failure: str) -> bool:
    """running → failed; the version stays ready, its rows can be searched by an earlier survey alone."""
    held = _held(version_id, survey)
    reports = list(held.values_list("survey_report", flat=True))
    return any(
        held.update(survey_status=SurveyStatus.FAILED, survey_report=report | {"failure": failure})
        for report in reports
    )


def interrupt(version_id: UUID, survey: int, *, seen_beat: int) -> bool:
    """running → waiting, when the supervisor has given no sign of life since `seen_beat`."""
    silent = _held(version_id, survey).filter(survey_heartbeat=seen_beat)
    return bool(silent.update(survey_status=SurveyStatus.WAITING))


def give_back(version_id: UUID, survey: int) -> bool:
    """running → waiting, by the survey itself, whose child was killed."""
    return bool(_held(version_id, survey).update(survey_status=SurveyStatus.WAITING))


def _held(version_id: UUID, survey: int) -> Any:
    """The version, as long as this survey is its newest and has not ended."""
    return DatasetVersion.objects.filter(pk=version_id, survey_status=SurveyStatus.RUNNING, survey=survey)
