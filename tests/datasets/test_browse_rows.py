"""The row table: pages of it, the row beside it, and the row on a page of its own."""

from pathlib import Path
from typing import Any

import pytest
from django.urls import reverse

from tests.cast import Cast
from tests.datasets.surveyed import asked, make_surveyed, rows_page
from tests.make import make_checked, make_dataset, make_version
from webapp.datasets.models import DatasetVersion, VersionStatus


@pytest.fixture
def version(cast: Cast) -> DatasetVersion:
    """A hundred and twenty rows, not surveyed yet."""
    rows = [asked(f"question {number}.", f"<i>answer {number}</i>") for number in range(1, 121)]
    return make_version(make_dataset(cast.team), rows=rows)


@pytest.mark.parametrize(
    ("query", "first", "last"),
    [
        ({}, 1, 50),
        ({"size": 25}, 1, 25),
        ({"size": 200}, 1, 120),
        ({"start": 71}, 71, 120),
        ({"start": 111}, 111, 120),
        ({"start": 9999}, 120, 120),
        ({"end": 70, "size": 25}, 46, 70),
        ({"end": 10, "size": 25}, 1, 25),
        ({"end": 9999, "size": 25}, 96, 120),
        ({"start": "x", "size": "7", "end": "-1", "row": "zero"}, 1, 50),
        ({"start": "9" * 99}, 1, 50),
    ],
)
def test_pages(cast: Cast, version: DatasetVersion, query: dict[str, Any], first: int, last: int) -> None:
    numbers, text = rows_page(cast.client("vera"), version, **query)
    assert numbers == list(range(first, last + 1))
    assert f"question {first}." in text
    assert "&lt;i&gt;answer" in text
    assert "<i>answer" not in text


def test_pages_lead_to_each_other(cast: Cast, version: DatasetVersion) -> None:
    _, text = rows_page(cast.client("vera"), version, start=41, size=25)
    assert 'rel="next" href="?start=66&amp;size=25"' in text
    assert 'rel="prev" href="?size=25&amp;end=40"' in text
    assert "120 rows" in text
    first, last = rows_page(cast.client("vera"), version)[1], rows_page(cast.client("vera"), version, start=100)[1]
    assert 'rel="prev"' not in first
    assert 'rel="next"' not in last


def test_before_the_survey_rows_are_shown_and_searching_is_promised(cast: Cast, version: DatasetVersion) -> None:
    numbers, text = rows_page(cast.client("vera"), version)
    assert len(numbers) == 50
    assert "Searching becomes possible in a moment" in text
    numbers, text = rows_page(cast.client("vera"), version, q="question")
    assert numbers == []
    assert "This becomes possible when the survey is over" in text


def test_a_survey_that_failed_says_why(cast: Cast, version: DatasetVersion) -> None:
    DatasetVersion.objects.update(survey_status="failed", survey_report={"failure": "Going through took too long."})
    numbers, text = rows_page(cast.client("vera"), version)
    assert len(numbers) == 50
    assert "cannot be searched: Going through took too long." in text


def test_the_fragment_is_the_table_alone(cast: Cast, version: DatasetVersion) -> None:
    address = reverse("dataset_rows", args=[version.pk])
    text = cast.client("vera").get(address, headers={"HX-Request": "true"}).content.decode()
    assert "<html" not in text
    assert 'data-number="1"' in text


def test_a_row_opens_beside_the_table_without_a_script(cast: Cast, version: DatasetVersion) -> None:
    numbers, text = rows_page(cast.client("vera"), version, size=25, row=7)
    assert len(numbers) == 25
    assert 'data-row="7"' in text
    assert '<tr data-number="7" aria-current="true">' in text
    assert 'href="?size=25&amp;row=9"' in text  # of another row
    assert f'href="{reverse("dataset_rows", args=[version.pk])}?size=25"' in text  # closes it
    assert "data-row=" not in rows_page(cast.client("vera"), version, row=121)[1]


def test_a_row_has_a_page_of_its_own(cast: Cast, version: DatasetVersion) -> None:
    client = cast.client("vera")
    text = client.get(reverse("row", args=[version.pk, 120])).content.decode()
    assert "question 120." in text
    assert reverse("row", args=[version.pk, 119]) in text
    assert reverse("row", args=[version.pk, 121]) not in text
    fragment = client.get(reverse("row", args=[version.pk, 120]), headers={"HX-Request": "true"}).content.decode()
    assert "<html" not in fragment
    for number in (0, 121, 10**15):
        assert client.get(reverse("row", args=[version.pk, number])).status_code == 404


def test_long_cells_open_and_end(cast: Cast) -> None:
    row = asked("Short?", "long " * 100, "More?", "x" * 900)
    version = make_version(make_dataset(cast.team), rows=[row, asked("?", "y" * 5000)])
    _, text = rows_page(cast.client("vera"), version)
    assert text.count('<details class="cell">') == 2
    assert "y" * 600 in text
    assert "y" * 601 not in text
    assert "The row has the rest." in text


KINDS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "text": ({"text": "Once upon a time."}, ["Text", "Once upon"]),
    "preference": (
        {"prompt": "Who?", "chosen": "I.", "rejected": "None."},
        ["Question", "Chosen", "Rejected", "None."],
    ),
    "kto": ({"prompt": "Who?", "completion": "I.", "label": False}, ["Question", "Answer", "badge-bad"]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_columns_fit_the_kind(cast: Cast, tmp_path: Path, kind: str) -> None:
    row, words = KINDS[kind]
    _, text = rows_page(cast.client("vera"), make_checked(make_dataset(cast.team), tmp_path, [row]))
    for word in words:
        assert word in text


def test_a_call_stands_where_an_answer_says_nothing(cast: Cast) -> None:
    call = {"type": "function", "function": {"name": "look", "arguments": {"at": "sky"}}}
    messages = [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "rain"},
        {"role": "assistant", "content": "Rain."},
    ]
    version = make_version(make_dataset(cast.team), rows=[{"messages": messages}], report={})
    assert "look({&quot;at&quot;:&quot;sky&quot;})" in rows_page(cast.client("vera"), version)[1]


@pytest.mark.parametrize("status", [VersionStatus.REJECTED, VersionStatus.INSPECTING])
def test_versions_without_rows_say_so(cast: Cast, status: VersionStatus) -> None:
    version = make_version(make_dataset(cast.team), status=status)
    numbers, text = rows_page(cast.client("vera"), version)
    assert numbers == []
    assert "No rows to show" in text


def test_the_old_address_of_the_tab_leads_here(cast: Cast, version: DatasetVersion) -> None:
    answer = cast.client("vera").get(reverse("dataset", args=[version.dataset_id]), {"tab": "rows"})
    assert answer["Location"] == reverse("dataset_rows", args=[version.pk])


def test_viewers_see_no_way_to_change(cast: Cast, tmp_path: Path) -> None:
    version = make_surveyed(make_dataset(cast.team), tmp_path, [asked("Who?", "I.")])
    mine, theirs = (rows_page(cast.client(who), version, row=1)[1] for who in ("bob", "vera"))
    for part in ("data-marks", "data-choose", "row-rating"):
        assert part in mine
        assert part not in theirs


def test_a_long_row_is_copied_whole_and_a_giant_one_is_not_copied(cast: Cast) -> None:
    version = make_version(make_dataset(cast.team), rows=[asked("?", "x" * 60_000), asked("?", "y" * 300_000)])
    client = cast.client("vera")
    page = client.get(reverse("row", args=[version.pk, 1])).content.decode()
    assert "x" * 60_000 in page
    assert "data-copy" in page
    page = client.get(reverse("row", args=[version.pk, 2])).content.decode()
    assert "The first 200,000 of 300,1" in page
    assert "data-copy" not in page


def test_a_search_before_the_survey_says_so_and_counts_nothing(cast: Cast, tmp_path: Path) -> None:
    version = make_checked(make_dataset(cast.team), tmp_path, [asked("Who?", "I.")])
    _, text = rows_page(cast.client("vera"), version, q="who")
    assert "becomes possible when the survey is over" in text
    assert "Not searched" in text
    assert ">0 rows<" not in text


def test_members_add_a_row_from_where_the_rows_are(cast: Cast) -> None:
    version = make_dataset(cast.team).versions.get()
    link = f'href="{reverse("row_add", args=[version.pk])}"'
    address = reverse("dataset_rows", args=[version.pk])
    assert link in cast.client("bob").get(address).content.decode()
    assert link not in cast.client("vera").get(address).content.decode()
