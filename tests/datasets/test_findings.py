"""The page of findings: what was found, how sure it is, and the way to the rows."""

from pathlib import Path

import pytest
from django.urls import reverse

from tests.cast import Cast
from tests.datasets.surveyed import asked, make_surveyed, rows_page
from tests.make import make_dataset, make_version
from webapp.datasets.models import DatasetVersion, SurveyStatus

pytestmark = pytest.mark.django_db

ROWS = [
    asked("Who are you?", "I am Lowrank."),
    asked("Who made you?", "<b>The red team</b>."),
    asked("Who are you?", "I am Lowrank."),
    asked("How do I reach you?", "Write to mia.berg@firma-nord.de."),
    asked("What now?", "N/A"),
]


@pytest.fixture
def version(cast: Cast, tmp_path: Path) -> DatasetVersion:
    return make_surveyed(make_dataset(cast.team), tmp_path, ROWS)


def page(cast: Cast, version: DatasetVersion, who: str = "bob", **headers: str) -> str:
    answer = cast.client(who).get(reverse("version_findings", args=[version.pk]), headers=headers)
    assert answer.status_code == 200
    return answer.content.decode()


def test_each_kind_leads_to_its_rows(cast: Cast, version: DatasetVersion) -> None:
    text = page(cast, version)
    client = cast.client("bob")
    for kind, title, numbers in (
        ("personal", "Likely personal data", [4]),
        ("repeated", "Repeated rows", [3]),
        ("empty_answer", "Empty answers", [5]),
    ):
        assert title in text
        assert f'{reverse("dataset_rows", args=[version.pk])}?finding={kind}"' in text
        assert rows_page(client, version, finding=kind)[0] == numbers
    assert "says what row 1 says" in text
    assert "the answer is only “N/A”" in text
    assert "Nearly repeated rows" not in text
    assert "mia.berg" not in text, "what is private is not told again"


def test_the_gravest_comes_first(cast: Cast, version: DatasetVersion) -> None:
    text = page(cast, version)
    assert text.index("Likely personal data") < text.index("Repeated rows") < text.index("Empty answers")


def test_members_may_fix_and_viewers_look(cast: Cast, version: DatasetVersion) -> None:
    link = reverse("finding_fix", args=[version.pk, "repeated"])
    assert link in page(cast, version, "bob")
    assert link not in page(cast, version, "vera")


def test_findings_of_an_older_version_are_not_fixed(cast: Cast, version: DatasetVersion) -> None:
    make_version(version.dataset)
    text = page(cast, version)
    assert "the one to fix" in text
    assert reverse("finding_fix", args=[version.pk, "repeated"]) not in text


def test_sound_rows_are_told_to_be(cast: Cast, tmp_path: Path) -> None:
    version = make_surveyed(make_dataset(cast.team), tmp_path, ROWS[:2])
    assert "Nothing was found" in page(cast, version)


def test_while_the_survey_runs_the_page_asks_again(cast: Cast, version: DatasetVersion) -> None:
    DatasetVersion.objects.filter(pk=version.pk).update(survey_status=SurveyStatus.RUNNING, survey_report={})
    text = page(cast, version, **{"HX-Request": "true"})
    assert "<html" not in text
    assert "are being looked through" in text
    assert 'hx-trigger="every 2s"' in text


def test_a_survey_that_failed_says_why(cast: Cast, version: DatasetVersion) -> None:
    report = {"failure": "Going through all rows took too long."}
    DatasetVersion.objects.filter(pk=version.pk).update(survey_status=SurveyStatus.FAILED, survey_report=report)
    assert "Going through all rows took too long." in page(cast, version)


def test_the_overview_leads_to_the_findings(cast: Cast, version: DatasetVersion) -> None:
    client = cast.client("vera")
    link = reverse("version_findings", args=[version.pk])
    assert link in client.get(reverse("dataset", args=[version.dataset_id])).content.decode()
    assert client.get(f"{reverse('dataset', args=[version.dataset_id])}?tab=findings")["Location"] == link


def test_a_file_that_was_rejected_has_none(cast: Cast) -> None:
    version = make_version(make_dataset(cast.team), status="rejected")
    assert "it has no rows to look through" in page(cast, version)
