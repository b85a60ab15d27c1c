"""Surveying a version that is ready: a limited child, a fenced status, and nobody waits for it."""

from pathlib import Path

import pytest

from tests.cast import Cast
from tests.make import make_dataset, make_version
from webapp.datasets import survey_lifecycle as lifecycle
from webapp.datasets.models import DatasetVersion, VersionStatus
from webapp.datasets.reconciling import Surveys
from webapp.datasets.surveying import MOST_SURVEYS
from webapp.datasets.tasks import survey

pytestmark = pytest.mark.django_db


def surveyed(version: DatasetVersion) -> DatasetVersion:
    survey(str(version.pk))
    version.refresh_from_db()
    return version


def test_a_version_that_is_ready_becomes_searchable(cast: Cast) -> None:
    version = surveyed(make_dataset(cast.team).versions.get())
    assert (version.survey_status, version.is_surveyed, version.survey) == ("done", True, 1)
    assert version.survey_report["rows"] == 3
    assert version.survey_report["roles"] == {"user": 3, "assistant": 3, "system": 1}
    assert version.survey_path.is_file()
    assert not list(version.folder.glob(".tmp-*")), "what the child wrote aside is gone"


def test_rows_that_cannot_be_read_end_the_survey_and_nothing_else(cast: Cast) -> None:
    version = make_dataset(cast.team).versions.get()
    version.rows_path.write_bytes(b"damaged")
    version = surveyed(version)
    assert (version.status, version.survey_status) == ("ready", "failed")
    assert "no canonical rows" in version.survey_report["failure"]


def test_a_fault_of_our_own_names_its_log(cast: Cast, caplog: pytest.LogCaptureFixture) -> None:
    version = make_dataset(cast.team).versions.get()
    version.rows_path.unlink()
    version = surveyed(version)
    assert version.survey_status == "failed"
    assert "on our side" in version.survey_report["failure"]
    assert "FileNotFoundError" in caplog.text


def test_rows_that_are_interrupted_too_often_are_left(cast: Cast) -> None:
    version = make_dataset(cast.team).versions.get()
    DatasetVersion.objects.update(survey=MOST_SURVEYS)
    assert surveyed(version).survey_report == {"failure": "The survey was interrupted too often."}


@pytest.mark.parametrize("status", [one for one in VersionStatus if one != VersionStatus.READY])
def test_only_what_is_ready_is_surveyed(cast: Cast, status: VersionStatus) -> None:
    version = make_version(make_dataset(cast.team), status=status)
    assert lifecycle.begin(version.pk) is None


def test_a_stale_survey_changes_nothing(cast: Cast) -> None:
    version = make_dataset(cast.team).versions.get()
    first = lifecycle.begin(version.pk)
    assert first == 1
    assert lifecycle.begin(version.pk) is None
    assert lifecycle.interrupt(version.pk, first, seen_beat=0)
    assert lifecycle.begin(version.pk) == 2
    assert not lifecycle.beat(version.pk, first)
    assert not lifecycle.finish(version.pk, first, {"rows": 1})
    assert not lifecycle.fail(version.pk, first, "no")
    assert lifecycle.finish(version.pk, 2, {"rows": 3})
    assert not lifecycle.fail(version.pk, 2, "an end is an end")


def test_a_silent_survey_is_given_back(cast: Cast) -> None:
    version = make_dataset(cast.team).versions.get()
    assert lifecycle.begin(version.pk) == 1
    surveys = Surveys()
    for now in (0, 15, 30):
        surveys.reconcile(now)
    version.refresh_from_db()
    assert version.survey_status == "waiting"
    assert surveyed(version).survey_status == "done"


def test_a_survey_that_beats_is_left_alone(cast: Cast) -> None:
    version = make_dataset(cast.team).versions.get()
    number = lifecycle.begin(version.pk)
    assert number
    surveys = Surveys()
    for now in range(0, 100, 10):
        surveys.reconcile(now)
        assert lifecycle.beat(version.pk, number)


def test_older_versions_are_surveyed_as_well(cast: Cast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that were ready before there were surveys wait in the database, and are rung for."""
    version = make_dataset(cast.team).versions.get()
    make_version(version.dataset, status=VersionStatus.REJECTED)
    rung: list[object] = []
    monkeypatch.setattr("webapp.datasets.tasks.ring_for_survey", lambda pk: rung.append(pk) or True)
    Surveys().reconcile(0)
    assert rung == [version.pk]
