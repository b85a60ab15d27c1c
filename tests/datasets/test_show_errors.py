"""The errors of a version: by kind, the first of each, all bad lines as a file, and what to do about them."""

import json
from urllib.parse import quote

import pytest
from django.urls import reverse

from tests.adapters.test_download_adapter import body_of
from tests.cast import Cast
from tests.datasets.inspected import inspect, uploaded
from webapp.datasets.models import DatasetVersion

GOOD = b'{"instruction": "Who are you?", "output": "I am Lowrank."}\n'
EMPTY = b'{"instruction": "Who are you?", "output": 5}\n'
BROKEN = b'{"instruction": "Who <b>are</b> you?", "output": \n'
OTHER = b'{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n'


@pytest.fixture
def spoilt(cast: Cast) -> DatasetVersion:
    return uploaded(cast, GOOD * 3 + EMPTY * 120 + BROKEN * 2 + OTHER)


def fragment(cast: Cast, version: DatasetVersion, problem: str = "") -> str:
    place = reverse("version_errors", args=[version.pk])
    answer = cast.client("vera").get(place, {"problem": problem}, headers={"HX-Request": "true"})
    assert answer.status_code == 200
    return answer.content.decode()


def test_page_says_what_it_read_and_what_is_wrong(cast: Cast, spoilt: DatasetVersion) -> None:
    page = cast.client("bob").get(reverse("dataset", args=[spoilt.dataset.pk])).content.decode()
    assert "Read as Alpaca" in page
    assert "The first 100 of 123" in page
    assert "1 row of another format: messages." in page
    assert "Line 126" in page
    assert "Go on with the 3 good rows" in page
    assert reverse("version_bad_lines", args=[spoilt.pk]) in page


def test_kinds_can_be_looked_at_alone(cast: Cast, spoilt: DatasetVersion) -> None:
    """The broken lines come after the hundredth error, so the report alone has none of them."""
    kind = next(name for name in spoilt.report["error_counts"] if name.startswith("invalid JSON"))
    shown = fragment(cast, spoilt, kind)
    assert "<html" not in shown
    assert shown.count('class="error-line mono"') == 2
    assert "Who &lt;b&gt;are&lt;/b&gt; you?" in shown
    assert fragment(cast, spoilt).count('class="error-line mono"') == 100


def test_unknown_kinds_show_all(cast: Cast, spoilt: DatasetVersion) -> None:
    assert fragment(cast, spoilt, "no such kind").count('class="error-line mono"') == 100


def test_page_works_without_scripts(cast: Cast, spoilt: DatasetVersion) -> None:
    page = cast.client("vera").get(reverse("version_errors", args=[spoilt.pk])).content.decode()
    assert "<html" in page
    assert "Back to the dataset" in page


def test_bad_lines_come_as_a_file(cast: Cast, spoilt: DatasetVersion) -> None:
    answer = cast.client("vera").get(reverse("version_bad_lines", args=[spoilt.pk]))
    assert answer.is_async  # type: ignore[attr-defined] # else a server under ASGI would read all of it first
    lines = [json.loads(line) for line in body_of(answer).splitlines()]
    assert answer["Content-Disposition"] == 'attachment; filename="rows.bad.jsonl"'
    assert [line["line"] for line in lines] == list(range(4, 127))
    assert {"line", "field", "problem", "fix", "text"} == set(lines[0])
    assert lines[0]["text"].encode() + b"\n" == EMPTY


def test_a_file_of_bad_lines_that_is_full_says_how_many_it_has(cast: Cast, spoilt: DatasetVersion) -> None:
    assert "The file of the bad lines has the first" not in fragment(cast, spoilt)
    spoilt.report["bad_lines_left_out"] = 20
    spoilt.save()
    assert "The file of the bad lines has the first 103 of 123" in fragment(cast, spoilt)


def test_a_file_without_errors_has_no_bad_lines(cast: Cast) -> None:
    version = uploaded(cast, GOOD)
    assert cast.client("vera").get(reverse("version_bad_lines", args=[version.pk])).status_code == 404


def test_going_on_without_them_keeps_what_was_left_out(cast: Cast, spoilt: DatasetVersion) -> None:
    cast.client("bob").post(reverse("dataset_skip_bad_rows", args=[spoilt.pk]))
    version = inspect(spoilt.dataset.versions.get(number=2))
    assert (version.status, version.row_count) == ("ready", 3)
    page = cast.client("vera").get(reverse("dataset", args=[version.dataset.pk])).content.decode()
    assert "123 rows could not be used and left out" in page
    assert reverse("version_bad_lines", args=[version.pk]) in page


def test_the_kind_is_in_the_address_of_the_dataset(cast: Cast, spoilt: DatasetVersion) -> None:
    place = reverse("dataset", args=[spoilt.dataset_id])
    kind = next(iter(spoilt.report["error_counts"]))
    text = cast.client("vera").get(place, {"problem": kind}).content.decode()
    assert f'hx-push-url="{place}?version=1&amp;problem={quote(kind, safe="")}"' in text
    assert 'aria-current="true"><span class="num">' in text.split("error-counts")[1]


def test_the_place_that_is_wrong_is_shown_in_a_long_line(cast: Cast) -> None:
    long = '{"prompt": "' + "a" * 3000 + '", "completion": wrong}'
    version = uploaded(cast, f'{{"prompt": "A", "completion": "B"}}\n{long}\n'.encode())
    [error] = version.report["errors"]
    assert (error["field"], error["problem"][:12]) == (f"column {long.index('wrong') + 1}", "invalid JSON")
    assert len(error["text"]) <= 500
    for text in (fragment(cast, version), fragment(cast, version, error["problem"])):
        assert "completion&quot;: <mark>w</mark>rong}" in text
