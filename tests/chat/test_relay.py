"""Carrying answers: whatever a model says or the database refuses, every answer comes to an end."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import DataError, connection

from tests.cast import Cast
from tests.make import make_conversation, make_turn
from webapp.adapters.models import BaseModel
from webapp.chat.models import Completion, Turn
from webapp.chat.relay import SAVE_SECONDS, Relay
from webapp.common import streams

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("live_streams")]


@pytest.fixture
def turn(cast: Cast, base: BaseModel) -> Turn:
    return make_turn(make_conversation(cast.team, cast.alice, base), status="streaming")


@contextmanager
def unwritable(word: str) -> Iterator[None]:
    """A database that takes no text with this word in it."""

    def refuse(execute: Callable[..., Any], sql: str, params: Any, many: bool, context: dict[str, Any]) -> Any:
        if sql.startswith("UPDATE") and any(isinstance(one, str) and word in one for one in params):
            raise DataError(f"It holds {word}.")
        return execute(sql, params, many, context)

    with connection.execute_wrapper(refuse):
        yield


def make_relay(turn: Turn) -> Relay:
    return Relay(turn, list(turn.completions.all()))


def test_an_answer_is_written_without_nul(turn: Turn) -> None:
    relay = make_relay(turn)
    (column,) = relay.columns
    for text in ("a\0", "\0", "b\0\0c"):
        relay.take(column, text, {"tokens": 1})
    relay.finish(column)
    answer = turn.completions.get()
    assert (answer.status, answer.text) == ("finished", "abc")
    entries = [entry["data"] for _, entry in streams._client().xrange(turn.stream)]
    assert json.loads(entries[-1])["text"] == "abc"
    assert not any("\\u0000" in entry for entry in entries)


def test_an_answer_that_cannot_be_written_ends_with_what_was(turn: Turn) -> None:
    Completion.objects.create(turn=turn, place=1, status="streaming")
    relay = make_relay(turn)
    first, second = relay.columns
    relay._saved -= SAVE_SECONDS
    relay.take(first, "so far, ", {})
    relay.take(first, "unheard of", {})
    relay.take(second, "fine", {})
    with unwritable("unheard"):
        with pytest.raises(DataError):
            relay.finish(first)
        relay.fail_rest("It broke.")
    assert list(turn.completions.values_list("status", "text", "error")) == [
        ("failed", "so far, ", "It broke."),
        ("failed", "fine", "It broke."),
    ]
    ends = [json.loads(entry["data"]) for _, entry in streams._client().xrange(turn.stream) if entry["event"] == "end"]
    assert [end["text"] for end in ends] == ["so far, ", "fine"]


def test_an_answer_that_cannot_be_ended_holds_up_no_other(turn: Turn) -> None:
    Completion.objects.create(turn=turn, place=1, status="streaming")
    relay = make_relay(turn)
    relay.columns[0].text, relay.columns[0].saved = "unheard of", 10
    with unwritable("unheard"):
        relay.fail_rest("It broke.")
    assert list(turn.completions.values_list("status", flat=True)) == ["streaming", "failed"]
    assert relay.open_columns == relay.columns[:1], "left to the scheduler"
