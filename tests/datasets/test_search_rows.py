"""Searching and filtering rows; everything is in the address, and nothing that is typed is an error."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from tests.cast import Cast
from tests.datasets.surveyed import asked, make_surveyed, rows_page
from tests.make import make_dataset
from trainer.formats import survey, survey_texts
from webapp.datasets import search
from webapp.datasets.highlighting import excerpt, pattern_of
from webapp.datasets.models import DatasetVersion
from webapp.datasets.search import TooSlow, Wanted, find, iter_found

ROWS = [
    asked("Where is Łódź?", "In Poland, <b>of course</b>."),
    asked("Write a poem", "Roses are red. " * 30, "And another", "Violets.", system="You are a poet."),
    asked("你能做什么", "机器学习模型可以回答问题"),
    asked("Where is Łódź?", "In Poland, <b>of course</b>."),
    *(asked(f"Count to {number}", "One, two, …") for number in range(5, 101)),
]


@pytest.fixture
def version(cast: Cast, tmp_path: Path) -> DatasetVersion:
    return make_surveyed(make_dataset(cast.team), tmp_path, ROWS)


@pytest.mark.parametrize(
    ("query", "numbers"),
    [
        ({"q": "poland"}, [1, 4]),
        ({"q": "ŁODZ"}, [1, 4]),
        ({"q": '"a poem"'}, [2]),
        ({"q": "学习"}, [3]),
        ({"q": "count 77"}, [77]),
        ({"q": "poet"}, [2]),  # said by the system, which no cell shows
        ({"q": "zzz"}, []),
        ({"q": "!!!"}, []),
        ({"finding": "repeated"}, [4]),
        ({"finding": "other_script"}, [3]),
        ({"finding": "any"}, [3, 4]),
        ({"finding": "unheard-of"}, []),
        ({"role": "system"}, [2]),
        ({"role": "tool"}, []),
        ({"turns": 2}, [2]),
        ({"shortest": 100}, [2]),
        ({"longest": 20}, [3]),
        ({"q": "poland", "finding": "any"}, [4]),
        ({"q": "poland", "longest": 10}, []),
        ({"split": "test"}, []),
    ],
)
def test_filters(cast: Cast, version: DatasetVersion, query: dict[str, Any], numbers: list[int]) -> None:
    assert rows_page(cast.client("vera"), version, **query)[0] == numbers


def test_pages_of_what_was_found(cast: Cast, version: DatasetVersion) -> None:
    client = cast.client("vera")
    numbers, text = rows_page(client, version, q="count", size=25)
    assert numbers == list(range(5, 30))
    assert "<strong>96 rows</strong> found" in text
    assert 'rel="next" href="?q=count&amp;size=25&amp;start=30"' in text
    assert 'rel="prev"' not in text
    assert rows_page(client, version, q="count", size=25, start=30)[0] == list(range(30, 55))
    numbers, text = rows_page(client, version, q="count", size=25, end=29)
    assert numbers == list(range(5, 30))
    assert 'rel="prev"' not in text
    assert 'rel="next"' in text
    assert rows_page(client, version, q="count", start=90)[0] == list(range(90, 101))
    assert rows_page(client, version, q="count", start=500)[0] == []


def test_what_was_found_is_marked(cast: Cast, version: DatasetVersion) -> None:
    _, text = rows_page(cast.client("vera"), version, q="łodz course")
    assert "<mark>Łódź</mark>" in text
    assert "&lt;b&gt;of <mark>course</mark>&lt;/b&gt;" in text
    _, text = rows_page(cast.client("vera"), version, q="poet")
    assert "System:</span> You are a <mark>poet</mark>." in text


def test_every_filter_can_be_taken_away(cast: Cast, version: DatasetVersion) -> None:
    _, text = rows_page(cast.client("vera"), version, q="poland", longest=900, size=25, start=2)
    assert 'href="?longest=900&amp;size=25" aria-label="Without: “poland”"' in text
    assert 'href="?q=poland&amp;size=25" aria-label="Without: at most 900 characters"' in text
    assert 'value="poland"' in text


@pytest.mark.parametrize(
    "typed",
    [
        '"',
        "((",
        "a AND",
        "NOT x",
        "NEAR(a, 2)",
        "text:a",
        "'; DROP TABLE rows; --",
        "{a}",
        "\0",
        "%",
        "*",
        "\\",
        "a" * 300,
    ],
)
def test_nothing_that_is_typed_is_an_error(cast: Cast, version: DatasetVersion, typed: str) -> None:
    rows_page(cast.client("vera"), version, q=typed)
    rows_page(cast.client("vera"), version, finding=typed[:60], role=typed[:20], split=typed[:99], tag=typed[:40])
    assert len(rows_page(cast.client("vera"), version)[0]) == 50


def test_what_takes_too_long_is_broken_off(
    cast: Cast, version: DatasetVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    for limit in ("PAGE_SECONDS", "COUNT_SECONDS"):
        monkeypatch.setattr(search, limit, -1.0)
    monkeypatch.setattr(search, "STEPS", 1)
    with pytest.raises(TooSlow):
        find(version.survey_path, Wanted(q="count"), size=10)
    assert "took too long" in rows_page(cast.client("vera"), version, q="count")[1]


def test_a_damaged_survey_is_not_a_slow_one(version: DatasetVersion, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(sqlite3.connect(version.survey_path)) as database:
        database.execute("DROP TABLE findings")
    for limit in ("PAGE_SECONDS", "COUNT_SECONDS"):
        monkeypatch.setattr(search, limit, -1.0)
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        find(version.survey_path, Wanted(finding="email"), size=10)


def test_a_damaged_survey_leaves_the_rows(cast: Cast, version: DatasetVersion) -> None:
    version.survey_path.write_bytes(b"no database" * 100)
    numbers, text = rows_page(cast.client("vera"), version, q="count")
    assert numbers == [] and "cannot be read" in text
    assert rows_page(cast.client("vera"), version)[0]


def test_pages_go_through_all_parts_of_the_texts(cast: Cast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (survey, survey_texts):
        monkeypatch.setattr(module, "ROWS_AT_ONCE" if module is survey else "ROWS_OF_PART", 10)
    version = make_surveyed(make_dataset(cast.team), tmp_path, ROWS)
    whole, some = Wanted(q="count"), Wanted(q="count", shortest=22)
    assert list(iter_found(version.survey_path, whole)) == list(range(5, 101))
    assert find(version.survey_path, whole, size=30).count == 96
    monkeypatch.setattr(search, "MOST_COUNTED", 3)
    search._remembered.clear()
    for wanted, first in ((whole, 5), (some, 10)):
        there = [number for number in range(1, 101) if number >= first]
        for at in (1, 7, 10, 11, 50, 95, 100):
            after, before = [n for n in there if n >= at], [n for n in there if n <= at]
            found = find(version.survey_path, wanted, size=12, start=at)
            assert (found.numbers, found.more_after) == (after[:12], len(after) > 12)
            assert found.more_before == (len(after) < len(there))
            found = find(version.survey_path, wanted, size=12, end=at)
            assert (found.numbers, found.more_before) == (before[-12:], len(before) > 12)
            assert found.more_after == (len(before) < len(there))


def test_a_survey_of_earlier_days_is_searched(version: DatasetVersion) -> None:
    with closing(sqlite3.connect(version.survey_path)) as database:
        database.execute("ALTER TABLE texts_1 RENAME TO texts")
    assert find(version.survey_path, Wanted(q="poland"), size=10).numbers == [1, 4]
    assert find(version.survey_path, Wanted(q="poland"), size=10, start=6000).numbers == []


def test_a_count_that_takes_too_long_is_left_out(version: DatasetVersion, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "COUNT_SECONDS", -1.0)
    monkeypatch.setattr(search, "STEPS", 1)
    found = find(version.survey_path, Wanted(q="count"), size=10)
    assert (found.numbers, found.count) == (list(range(5, 15)), None)


def test_the_file_is_only_read(version: DatasetVersion) -> None:
    version.survey_path.chmod(0o400)
    before = sorted(version.folder.iterdir())
    assert len(list(iter_found(version.survey_path, Wanted(longest=900)))) == 100
    assert sorted(version.folder.iterdir()) == before


def test_a_page_asks_the_database_little(cast: Cast, version: DatasetVersion) -> None:
    client = cast.client("vera")
    rows_page(client, version, q="count")
    with CaptureQueriesContext(
        connection,
    ) as few:
        rows_page(client, version, q="count", size=25)
    with CaptureQueriesContext(connection) as many:
        rows_page(client, version, q="count", size=100)
    assert len(few) == len(many) < 25


def test_a_version_too_large_to_search_still_filters(cast: Cast, version: DatasetVersion) -> None:
    DatasetVersion.objects.filter(pk=version.pk).update(survey_report=version.survey_report | {"searchable": False})
    assert "too large for a search" in rows_page(cast.client("vera"), version, q="count")[1]
    assert rows_page(cast.client("vera"), version, turns=2)[0] == [2]


@pytest.mark.parametrize(
    ("typed", "text", "marked"),
    [
        ("cafe", "Le Café, cafés", ["Café", "café"]),
        ("the", "the theme breathes", ["the"]),
        ("them*", "theme them anthem", ["them", "them"]),
        ('"of course"', "of  course, of\ncourse", ["of  course", "of\ncourse"]),
        ("模型", "机器学习模型", ["模型"]),
        ("a.*(", "aaa a.*(", ["a"]),
        ("(a+)+$", "a" * 500, []),
    ],
)
def test_marks(typed: str, text: str, marked: list[str]) -> None:
    pieces = excerpt(text, pattern_of(typed), 600)
    assert [piece for piece, found in pieces if found] == marked
    assert "".join(piece for piece, _ in pieces) == text


def test_an_excerpt_begins_shortly_before_what_was_found() -> None:
    pieces = excerpt("x " * 500 + "needle" + " y" * 500, pattern_of("needle"), 200)
    assert pieces[0] == ("…", False)
    assert ("needle", True) in pieces
    assert len("".join(piece for piece, _ in pieces)) == 201
