"""The chat family: OpenAI's `messages` with text parts, `weight`, tool calls and `tools`, under any common name."""

from collections.abc import Iterable
from typing import Any

from trainer.formats import conversations, turns
from trainer.formats.canonical import Content
from trainer.formats.conversations import FIELDS, column_with, columns_of, read_conversation, unread
from trainer.formats.family import Family
from trainer.formats.fields import decode_if_json
from trainer.formats.tools import tools_of

OTHER_FAMILY_FIELDS = frozenset({"kto_tag", "rejected"})
DEVELOPER = "Messages of the developer are read as system messages"


def matches(row: dict[str, Any]) -> float:
    """How much a row looks like this family, from 0 to 1."""
    if column_with(row, "role"):
        return 1.0 if is_only_conversation(row) else 0.5
    return 0.5 if "messages" in row and not column_with(row, "from") else 0.0


def is_only_conversation(row: dict[str, Any]) -> bool:
    """Whether the row holds one conversation without a label or a rejected answer."""
    return OTHER_FAMILY_FIELDS.isdisjoint(row) and not isinstance(row.get("label"), bool)


def read(row: dict[str, Any]) -> Content:
    """The row in canonical form: content is text or null, tool arguments are objects, `developer` becomes `system`."""
    return Content(messages=read_conversation(row, column_of(row)), tools=tools_of(row))


def column_of(row: dict[str, Any], key: str = "role") -> str:
    return column_with(row, key) or next(columns_of(row), "messages")


def ignored(row: dict[str, Any]) -> Iterable[str]:
    column = column_of(row)
    inside = turns.ignored_keys(decode_if_json(row[column], column), column)
    return [*inside, *beside] if (beside := unread(row, column)) else inside


def repaired(row: dict[str, Any]) -> Iterable[str]:
    column = column_of(row)
    roles = [turn.get("role") for turn in decode_if_json(row[column], column)]
    if "developer" in roles:
        yield DEVELOPER
    yield from conversations.turn_warnings(row, column)


FAMILY = Family(
    name="messages",
    kind="chat",
    saw='"messages" with role and content (OpenAI)',
    layout=lambda row: f'"{column_of(row)[:40]}" with role and content (OpenAI)',
    fields=FIELDS,
    matches=matches,
    read=read,
    reads=lambda row: (column_of(row),),
    ignored=ignored,
    repaired=repaired,
    fast_path=lambda row: conversations.fast_path(row, "messages", ["role", "content"]),
)
