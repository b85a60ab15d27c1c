"""The ShareGPT family: `conversations` of turns with `from` and `value`, including calls and observations."""

from collections.abc import Iterable
from typing import Any

from trainer.formats import conversations, turns
from trainer.formats.canonical import Content
from trainer.formats.conversations import FIELDS, column_with, read_conversation, unread
from trainer.formats.family import Family
from trainer.formats.fields import decode_if_json
from trainer.formats.messages import column_of, is_only_conversation
from trainer.formats.tools import tools_of


def matches(row: dict[str, Any]) -> float:
    """How much a row looks like this family, from 0 to 1."""
    if column_with(row, "from"):
        return 1.0 if is_only_conversation(row) else 0.5
    return 0.5 if "conversations" in row and not column_with(row, "role") else 0.0


def read(row: dict[str, Any]) -> Content:
    """The row as a chat; `system` and `tools` are separate columns, tools often as JSON text."""
    return Content(messages=read_conversation(row, column_of(row, "from"), key="from"), tools=tools_of(row))


def ignored(row: dict[str, Any]) -> Iterable[str]:
    column = column_of(row, "from")
    inside = turns.ignored_keys(decode_if_json(row[column], column), column)
    return [*inside, *beside] if (beside := unread(row, column)) else inside


FAMILY = Family(
    name="sharegpt",
    kind="chat",
    saw='"conversations" with from and value (ShareGPT)',
    layout=lambda row: f'"{column_of(row, "from")[:40]}" with from and value (ShareGPT)',
    fields=FIELDS,
    matches=matches,
    read=read,
    reads=lambda row: (column_of(row, "from"),),
    ignored=ignored,
    repaired=lambda row: conversations.turn_warnings(row, column_of(row, "from")),
    fast_path=lambda row: conversations.fast_path(row, "conversations", ["from", "value"]),
)
