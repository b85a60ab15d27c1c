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
    assert "repeats row 1" in text
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


def overview(cast: Cast, version: DatasetVersion) -> str:
    return cast.client("vera").get(reverse("dataset", args=[version.dataset_id])).content.decode()


GOOD = "Every row is good"


def test_the_overview_tells_what_was_found_in_the_rows(cast: Cast, version: DatasetVersion) -> None:
    text = overview(cast, version)
    rows, findings = (reverse(name, args=[version.pk]) for name in ("dataset_rows", "version_findings"))
    assert f'href="{rows}?finding=personal">1 row</a> <span><a href="{findings}#finding-personal"' in text
    assert GOOD not in text
    assert "repeat an earlier row exactly" not in text, "the survey tells it, with its rows"


def test_the_overview_calls_rows_good_only_when_they_were_looked_through(cast: Cast, tmp_path: Path) -> None:
    version = make_surveyed(make_dataset(cast.team), tmp_path, ROWS[:2])
    assert GOOD in overview(cast, version)
    there = DatasetVersion.objects.filter(pk=version.pk)
    there.update(survey_status=SurveyStatus.RUNNING, survey_report={})
    text = overview(cast, version)
    assert "The rows are being looked through" in text
    assert GOOD not in text
    place = f"{reverse('version_findings', args=[version.pk])}?brief=1"
    assert place in text
    assert "The rows are being looked through" in cast.client("vera").get(place).content.decode()
    there.update(survey_status=SurveyStatus.FAILED, survey_report={"failure": "No room on the disk."})
    assert "No room on the disk." in overview(cast, version)
    assert GOOD not in overview(cast, version)


def test_one_row_that_repeats_is_told_in_grammar(cast: Cast, version: DatasetVersion) -> None:
    DatasetVersion.objects.filter(pk=version.pk).update(survey_status=SurveyStatus.WAITING, survey_report={})
    assert "1 row repeats an earlier row exactly" in overview(cast, version)


def test_an_opened_row_says_what_was_found_in_it(cast: Cast, version: DatasetVersion) -> None:
    client = cast.client("vera")
    for place in (reverse("row", args=[version.pk, 3]), f"{reverse('dataset_rows', args=[version.pk])}?row=3"):
        text = client.get(place).content.decode().split("Found in this row")[1]
        assert f"{reverse('version_findings', args=[version.pk])}#finding-repeated" in text
        assert "repeats row 1" in text
        assert "finding=repeated&amp;start=1&amp;row=1" in text
    assert "Found in this row" not in client.get(reverse("row", args=[version.pk, 2])).content.decode()
    version.survey_path.write_bytes(b"damaged" * 1000)
    assert client.get(reverse("row", args=[version.pk, 3])).status_code == 200


def test_the_mix_of_letters_leads_to_the_rows(cast: Cast, tmp_path: Path) -> None:
    rows = [
        *ROWS,
        asked("Кто ты такой?", "Я помощник."),
        asked("你是谁，你叫什么名字？", "我是一个助手。"),
        asked("1+1", "2"),
    ]
    version = make_surveyed(make_dataset(cast.team), tmp_path, rows)
    text = overview(cast, version).split("Letters the rows are written in")[1]
    for script, number in (("Cyrillic", 6), ("Chinese", 7)):
        assert f"?script={script}" in text
        shown, table = rows_page(cast.client("vera"), version, script=script)
        assert shown == [number]
        assert f"written in {script}" in table
    assert "Hardly any letters" in text
    assert "62.5 %" in text
    older = version.survey_report | {"version": 3}
    del older["scripts"]
    DatasetVersion.objects.filter(pk=version.pk).update(survey_report=older)
    assert rows_page(cast.client("vera"), version, script="Chinese")[0] == []


def test_all_rows_of_the_same_letters_have_no_mix(cast: Cast, version: DatasetVersion) -> None:
    assert "Letters the rows are written in" not in overview(cast, version)
