"""The editor of a row: what it shows, what it keeps, and what it refuses as an upload would."""

import json
from pathlib import Path
from typing import Any

import pytest
from django.http import HttpResponse
from django.urls import reverse

from tests.cast import Cast
from tests.make import make_checked, make_dataset
from trainer.formats import iter_rows
from webapp.datasets.models import DatasetVersion, DraftChange

NEW = {"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A", "weight": 1}]}
CALL = {"type": "function", "function": {"name": "add", "arguments": {"b": 2, "a": 1.5}}}


@pytest.fixture
def version(cast: Cast) -> DatasetVersion:
    return make_dataset(cast.team, created_by=cast.alice).versions.get()


def send(cast: Cast, version: DatasetVersion, row: Any, *, number: int = 1, **form: str) -> HttpResponse:
    seen = list(iter_rows(version.rows_path))[number - 1].content_id
    text = row if isinstance(row, str) else json.dumps(row)
    address = reverse("row_edit", args=[version.pk, number])
    return cast.client("bob").post(address, {"row": text, "seen": seen} | form)


def test_the_row_is_there_as_json(cast: Cast, version: DatasetVersion) -> None:
    page = cast.client("bob").get(reverse("row_edit", args=[version.pk, 3])).content.decode()
    assert "Name a colour." in page
    assert 'name="row"' in page
    assert "Edit row" in page


def test_an_edit_is_kept_and_shown_again(cast: Cast, version: DatasetVersion) -> None:
    assert send(cast, version, NEW)["Location"] == reverse("draft", args=[version.pk])
    change = DraftChange.objects.get()
    assert (change.action, change.number, change.label) == ("edit", 1, "Q")
    assert json.loads(change.shape) == NEW
    page = cast.client("bob").get(reverse("row_edit", args=[version.pk, 1])).content.decode()
    assert "&quot;content&quot;: &quot;Q&quot;" in page
    assert str(change.pk) in page, "so that a second edit is known to follow the first"


def test_tool_calls_keep_their_types_and_order(cast: Cast, version: DatasetVersion) -> None:
    asked, answer = {"role": "user", "content": "Add"}, {"role": "assistant", "content": None, "tool_calls": [CALL]}
    result = {"role": "tool", "content": "3.5"}
    send(cast, version, {"messages": [asked, answer, result, {"role": "assistant", "content": "3.5"}]})
    kept = DraftChange.objects.get().shape
    assert '"arguments":{"b":2,"a":1.5}' in kept


@pytest.mark.parametrize(
    ("row", "field", "problem"),
    [
        ("{", "", "is not valid JSON"),
        ("[1]", "", "a row must be an object"),
        ('{"messages": []}', "messages", "field is empty"),
        ({"messages": [{"role": "user", "content": "Q"}]}, "messages", "no message of the assistant"),
        ({"messages": [{"role": "user", "content": ""}, NEW["messages"][1]]}, "messages[0].content", "field is empty"),
        ({**NEW, "tools": [{"x": 1}]}, "tools[0]", "is not a tool definition"),
        ('{"messages": NaN}', "messages", "NaN and Infinity are not JSON"),
        ('{"text": "a story"}', "text", "is no field of such a row"),
        ("[" * 5000, "", "nested too deep"),
    ],
)
def test_what_a_file_could_not_hold_is_refused_at_its_field(
    cast: Cast, version: DatasetVersion, row: Any, field: str, problem: str
) -> None:
    answer = send(cast, version, row)
    page = answer.content.decode()
    assert answer.status_code == 422
    assert f'data-problem="{field}"' in page
    assert problem in page
    assert not DraftChange.objects.exists()


def test_what_was_written_is_not_lost(cast: Cast, version: DatasetVersion) -> None:
    assert "half a sen" in send(cast, version, '{"messages": "half a sen').content.decode()


def test_what_was_written_over_something_newer_is_not_lost(cast: Cast, version: DatasetVersion) -> None:
    assert send(cast, version, NEW).status_code == 302
    answer = send(cast, version, NEW, seen="older")
    assert answer.status_code == 409
    assert "changed meanwhile" in answer.content.decode() and 'data-problem=""' in answer.content.decode()


@pytest.mark.parametrize("number", [0, 4, 10**8])
def test_a_row_that_is_not_there(cast: Cast, version: DatasetVersion, number: int) -> None:
    assert cast.client("bob").get(reverse("row_edit", args=[version.pk, number])).status_code == 404


def test_a_row_is_added_and_edited_before_it_is_saved(cast: Cast, version: DatasetVersion) -> None:
    client = cast.client("bob")
    assert client.post(reverse("row_add", args=[version.pk]), {"row": json.dumps(NEW)}).status_code == 302
    change = DraftChange.objects.get()
    address = reverse("draft_row", args=[change.pk])
    page = client.get(address).content.decode()
    seen = page.split('name="seen" value="')[1].split('"')[0]
    other = json.dumps(NEW).replace("Q", "Other")
    assert client.post(address, {"row": other, "seen": "older"}).status_code == 409
    assert client.post(address, {"row": other, "seen": seen}).status_code == 302
    change.refresh_from_db()
    assert (change.action, change.label) == ("add", "Other")


KINDS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "preference": (
        {"prompt": "Who?", "chosen": "I.", "rejected": "You."},
        {
            "prompt": [{"role": "user", "content": "Who?"}],
            "chosen": [{"role": "assistant", "content": "We."}],
            "rejected": [{"role": "assistant", "content": "We."}],
        },
        "both answers are the same",
    ),
    "labelled": (
        {"prompt": "Who?", "completion": "I.", "label": True},
        {"prompt": [{"role": "user", "content": "Who?"}], "completion": [], "label": False},
        "field is empty",
    ),
    "text": ({"text": "Once."}, {"text": "  "}, "field is empty"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_every_kind_are_edited(cast: Cast, tmp_path: Path, kind: str) -> None:
    row, bad, problem = KINDS[kind]
    version = make_checked(make_dataset(cast.team), tmp_path, [row])
    shape = next(iter_rows(version.rows_path)).shape()
    answer = send(cast, version, bad)
    assert answer.status_code == 422
    assert problem in answer.content.decode()
    changed = json.dumps(shape).replace("I.", "Me.").replace("Once.", "Twice.")
    assert send(cast, version, changed).status_code == 302
    assert json.loads(DraftChange.objects.get().shape) == json.loads(changed)


@pytest.mark.parametrize("back", ["https://evil.example/", "//evil.example", "javascript:alert(1)", "\\\\evil"])
def test_the_way_back_stays_here(cast: Cast, version: DatasetVersion, back: str) -> None:
    assert send(cast, version, NEW, back=back)["Location"] == reverse("draft", args=[version.pk])


def test_the_way_back_leads_where_one_came_from(cast: Cast, version: DatasetVersion) -> None:
    assert send(cast, version, NEW, back="/datasets/?q=1")["Location"] == "/datasets/?q=1"
