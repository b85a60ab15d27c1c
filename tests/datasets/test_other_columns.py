"""The other columns of an upload: shown with their rows, filtered and divided by, and exported again."""

import json
from collections import Counter

import pytest
from django.urls import reverse

from tests.adapters.test_download_adapter import body_of
from tests.cast import Cast
from tests.datasets.inspected import inspect, uploaded
from tests.datasets.surveyed import rows_page
from trainer.formats import iter_rows
from trainer.formats.survey import VERSION
from trainer.formats.survey_columns import MAX_LISTED, MAX_VALUES
from webapp.common.errors import UserError
from webapp.datasets import export, survey_lifecycle
from webapp.datasets.models import DatasetVersion, SurveyStatus
from webapp.datasets.reconciling import Surveys
from webapp.datasets.tasks import survey

LANGS = ["en"] * 20 + ["de"] * 10 + ["<b>"] * 5
ROWS = [
    {"instruction": f"question {n}", "output": "Yes.", "lang": lang, "score": n / 10, "uid": f"u{n}"}
    for n, lang in enumerate(LANGS, 1)
]


@pytest.fixture
def version(cast: Cast) -> DatasetVersion:
    return surveyed(uploaded(cast, b"".join(json.dumps(row).encode() + b"\n" for row in ROWS)))


def surveyed(version: DatasetVersion) -> DatasetVersion:
    survey(str(version.pk))
    version.refresh_from_db()
    return version


def test_the_overview_says_what_is_kept(cast: Cast, version: DatasetVersion) -> None:
    page = cast.client("vera").get(reverse("dataset", args=[version.dataset_id])).content.decode()
    assert "training does not read them: lang, score, uid." in page
    assert version.columns == ["lang", "score", "uid"]


def test_rows_are_found_by_what_a_column_says(cast: Cast, version: DatasetVersion) -> None:
    numbers, page = rows_page(cast.client("vera"), version, column="lang=de")
    assert numbers == list(range(21, 31))
    assert "lang: de" in page and '<option value="lang=de" selected>de (10)</option>' in page
    assert rows_page(cast.client("vera"), version, column="lang=<b>")[0] == list(range(31, 36))
    assert "&lt;b&gt; (5)" in page
    assert rows_page(cast.client("vera"), version, column="score=0.5")[0] == [5]
    assert rows_page(cast.client("vera"), version, column="lang=de", q="question 25")[0] == [25]
    assert rows_page(cast.client("vera"), version, column="lang=de", size=25, start=25)[0] == list(range(25, 31))
    for nothing in ("lang=fr", "lang", "=", "'; DROP TABLE said; --"):
        assert rows_page(cast.client("vera"), version, column=nothing)[0] == []


def test_a_row_says_what_its_columns_said(cast: Cast, version: DatasetVersion) -> None:
    page = cast.client("vera").get(reverse("row", args=[version.pk, 31])).content.decode()
    assert "<dt>lang</dt>" in page and "&lt;b&gt;</a>" in page
    assert f'href="{reverse("dataset_rows", args=[version.pk])}?column=lang%3D%3Cb%3E"' in page


def test_a_column_that_names_every_row_is_no_filter(cast: Cast) -> None:
    rows = b"".join(
        json.dumps({"instruction": f"q {n}", "output": "a", "uid": n, "lang": n % 60}).encode() + b"\n"
        for n in range(MAX_VALUES + 5)
    )
    version = surveyed(uploaded(cast, rows))
    told = version.survey_report["columns"]
    assert told["uid"] == {"rows": MAX_VALUES + 5, "different": 0, "values": {}}
    assert (told["lang"]["different"], len(told["lang"]["values"])) == (60, MAX_LISTED)
    client = cast.client("vera")
    assert rows_page(client, version, column="uid=7")[0] == []
    assert len(rows_page(client, version, column="lang=59", size=50)[0]) == 16, "not listed, but found"


def test_a_split_is_even_over_a_column(cast: Cast, version: DatasetVersion) -> None:
    form = {"method": "column", "column": "lang", "name": "test", "percent": "20", "seed": "7"}
    answer = cast.client("bob").post(reverse("split_new", args=[version.pk]), form)
    assert answer.status_code == 302
    made = version.dataset.versions.first()
    assert made is not None and made.note == "Evenly over lang: 20 %"
    inspect(made)
    parts = Counter((row.split, row.extra["lang"]) for row in iter_rows(made.rows_path))
    assert {lang: parts["test", lang] for lang in ("en", "de", "<b>")} == {"en": 4, "de": 2, "<b>": 1}
    assert made.columns == version.columns


@pytest.mark.parametrize("column", ["", "elsewhere"])
def test_a_split_needs_a_column_that_there_is(cast: Cast, version: DatasetVersion, column: str) -> None:
    form = {"method": "column", "column": column, "name": "test", "percent": "20"}
    assert cast.client("bob").post(reverse("split_new", args=[version.pk]), form).status_code == 422
    assert version.dataset.versions.count() == 1


def test_without_other_columns_there_is_nothing_to_choose(cast: Cast) -> None:
    version = surveyed(uploaded(cast, b'{"instruction": "a", "output": "b"}\n'))
    page = cast.client("bob").get(reverse("split_new", args=[version.pk])).content.decode()
    assert 'name="column"' not in page and "a column of the upload" not in page
    assert "<span>Column" not in rows_page(cast.client("bob"), version)[1]


@pytest.mark.parametrize("layout", ["messages", "alpaca", "csv", "csv-text", "sharegpt"])
def test_what_is_exported_is_read_back_with_its_columns(cast: Cast, version: DatasetVersion, layout: str) -> None:
    answer = cast.client("vera").get(reverse("version_export", args=[version.pk]), {"layout": layout})
    content = body_of(answer)
    again = uploaded(cast, content, name="again.csv" if layout.startswith("csv") else "again.jsonl")
    told = [{name: str(one) for name, one in row.extra.items()} for row in iter_rows(again.rows_path)]
    assert told == [{name: str(row[name]) for name in ("lang", "score", "uid")} for row in ROWS]
    assert [row.id for row in iter_rows(again.rows_path)] == [row.id for row in iter_rows(version.rows_path)]


def test_a_column_that_a_layout_would_read_is_named(cast: Cast) -> None:
    version = surveyed(
        uploaded(
            cast,
            b'{"messages": [{"role": "user", "content": "a"}, '
            b'{"role": "assistant", "content": "b"}], "input": "x", "lang": "en"}\n',
        )
    )
    page = cast.client("vera").get(reverse("version_export_losses", args=[version.pk])).content.decode()
    assert "Alpaca has no place for input, which would be read as something else." in page
    assert "OpenAI messages has no place" not in page


def test_a_survey_by_an_older_release_is_made_again(
    cast: Cast, version: DatasetVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One at a time, the newest first; what it found is there until then, without what it did not know yet."""
    assert version.survey_version == VERSION
    other = surveyed(uploaded(cast, b'{"instruction": "a", "output": "b", "lang": "en"}\n'))
    old = {name: value for name, value in version.survey_report.items() if name not in ("columns", "version")}
    DatasetVersion.objects.update(survey_version=VERSION - 1, survey=3)
    DatasetVersion.objects.filter(pk=version.pk).update(survey_report=old)
    rung: list[object] = []
    monkeypatch.setattr("webapp.datasets.tasks.ring_for_survey", lambda pk: rung.append(pk) or True)
    watch = Surveys()
    watch.reconcile(0)
    watch.reconcile(1)
    assert rung == [other.pk]
    assert surveyed(other).survey_version == VERSION
    watch.reconcile(20)
    watch.reconcile(21)
    version.refresh_from_db()
    assert (version.survey_status, version.is_surveyed) == (SurveyStatus.WAITING, True)
    assert rows_page(cast.client("vera"), version, q="question 25")[0] == [25]
    assert "are being gone through" in rows_page(cast.client("vera"), version, column="lang=de")[1]
    with pytest.raises(UserError, match="search"):
        list(export.pieces_of(version, export.layouts(version)[0], {"column": "lang=de"}))
    assert rows_page(cast.client("vera"), surveyed(version), column="lang=de")[0] == list(range(21, 31))
    watch.reconcile(40)
    watch.reconcile(41)
    assert len(rung) == 2, "all are new"


def test_a_survey_that_fails_the_second_time_leaves_the_first(cast: Cast, version: DatasetVersion) -> None:
    DatasetVersion.objects.update(survey_version=0)
    assert survey_lifecycle.repeat(version.pk, older_than=VERSION)
    assert not survey_lifecycle.repeat(version.pk, older_than=VERSION)
    number = survey_lifecycle.begin(version.pk)
    assert number and survey_lifecycle.fail(version.pk, number, "No.")
    version.refresh_from_db()
    assert (version.survey_status, version.is_surveyed) == (SurveyStatus.FAILED, True)
    assert rows_page(cast.client("vera"), version, column="lang=de")[0] == list(range(21, 31))
