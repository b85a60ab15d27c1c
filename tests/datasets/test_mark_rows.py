"""Stars, ratings and tags of rows: a team's, and the same in every version that has the row."""

from pathlib import Path
from typing import Any

import pytest
from django.urls import reverse

from tests.cast import Cast
from tests.datasets.surveyed import asked, make_surveyed, rows_page
from tests.make import make_dataset
from webapp.common.errors import UserError
from webapp.datasets import row_marks
from webapp.datasets.models import DatasetVersion, RowMark, RowTag
from webapp.datasets.row_marks import Change, change_marks, marks_of

ROWS = [asked(f"Question {number}?", f"Answer {number}.") for number in range(1, 8)]


@pytest.fixture
def version(cast: Cast, tmp_path: Path) -> DatasetVersion:
    return make_surveyed(make_dataset(cast.team), tmp_path, ROWS)


def mark(cast: Cast, version: DatasetVersion, who: str = "bob", **data: Any) -> int:
    return cast.client(who).post(reverse("row_marks", args=[version.pk]), data).status_code


def test_a_star_comes_and_goes(cast: Cast, version: DatasetVersion) -> None:
    assert mark(cast, version, number=3, star="on") == 302
    assert rows_page(cast.client("vera"), version, starred=1)[0] == [3]
    made = RowMark.objects.get()
    assert (made.changed_by, made.dataset) == (cast.bob, version.dataset)
    mark(cast, version, number=3, star="off")
    assert rows_page(cast.client("vera"), version, starred=1)[0] == []


def test_a_rating_leaves_the_star(cast: Cast, version: DatasetVersion) -> None:
    mark(cast, version, number=[2, 3], star="on")
    mark(cast, version, number=3, rating=4)
    assert rows_page(cast.client("vera"), version, rating=4)[0] == [3]
    assert rows_page(cast.client("vera"), version, rating=5)[0] == []
    assert rows_page(cast.client("vera"), version, starred=1)[0] == [2, 3]
    mark(cast, version, number=3, rating=0)
    assert rows_page(cast.client("vera"), version, rating=1)[0] == []
    assert rows_page(cast.client("vera"), version, starred=1)[0] == [2, 3]


def test_many_rows_are_tagged_at_once(cast: Cast, version: DatasetVersion) -> None:
    for _ in range(2):
        mark(cast, version, number=[1, 5, 7], tag="  to\n check ")
    assert rows_page(cast.client("vera"), version, tag="to check")[0] == [1, 5, 7]
    mark(cast, version, number=[5], untag="to check")
    numbers, text = rows_page(cast.client("vera"), version, tag="to check", q="answer")
    assert numbers == [1, 7]
    assert "<option selected>to check</option>" in text


def test_marks_follow_a_row_into_the_next_version(cast: Cast, version: DatasetVersion, tmp_path: Path) -> None:
    mark(cast, version, number=3, star="on", tag="keep")
    later = make_surveyed(version.dataset, tmp_path, [ROWS[6], ROWS[2], ROWS[0]])
    assert rows_page(cast.client("vera"), later, starred=1, tag="keep")[0] == [2]
    other = make_surveyed(make_dataset(cast.team, name="other"), tmp_path, ROWS)
    assert rows_page(cast.client("vera"), other, starred=1)[0] == []


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"number": "x", "star": "on"},
        {"number": "-1", "star": "on"},
        {"number": 1, "rating": 6},
        {"number": 1, "star": "maybe"},
        {"number": 1, "tag": "t" * 41},
        {"number": 99, "star": "on"},
        {"number": list(range(1, 502)), "star": "on"},
    ],
)
def test_what_makes_no_sense_changes_nothing(cast: Cast, version: DatasetVersion, data: dict[str, Any]) -> None:
    assert mark(cast, version, **data) == 302
    assert not RowMark.objects.exists()
    assert not RowTag.objects.exists()


def test_a_script_hears_whether_it_worked(cast: Cast, version: DatasetVersion) -> None:
    client, address = cast.client("bob"), reverse("row_marks", args=[version.pk])
    assert client.post(address, {"number": 1, "star": "on"}, headers={"HX-Request": "true"}).status_code == 204
    assert client.post(address, {"star": "on"}, headers={"HX-Request": "true"}).status_code == 422


@pytest.mark.parametrize("back", ["//evil.example/", "https://evil.example/", "javascript:alert(1)", ""])
def test_it_leads_back_to_pages_of_ours_alone(cast: Cast, version: DatasetVersion, back: str) -> None:
    client, address = cast.client("bob"), reverse("row_marks", args=[version.pk])
    rows = reverse("dataset_rows", args=[version.pk])
    assert client.post(address, {"number": 1, "star": "on", "back": back})["Location"] == rows
    assert client.post(address, {"number": 1, "back": f"{rows}?q=a"})["Location"] == f"{rows}?q=a"


def test_viewers_and_strangers_change_nothing(cast: Cast, version: DatasetVersion) -> None:
    assert mark(cast, version, "vera", number=1, star="on") == 403
    assert mark(cast, version, "charlie", number=1, star="on") == 404
    assert not RowMark.objects.exists()


def test_there_are_only_so_many_tags(cast: Cast, version: DatasetVersion, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_marks, "MOST_TAGS", 2)
    for name in ("a", "b", "a"):
        change_marks(user=cast.bob, dataset=version.dataset, row_ids=["x"], change=Change(tag=name))
    with pytest.raises(UserError, match="2 different tags"):
        change_marks(user=cast.bob, dataset=version.dataset, row_ids=["x"], change=Change(tag="c"))
    assert marks_of(version.dataset, ["x"])["x"].tags == ["a", "b"]
