"""Turns with other keys than OpenAI's and ShareGPT's, such as `speaker` and `text`: detected by name, or given."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from trainer.formats import turns
from trainer.formats.canonical import Content, Message
from trainer.formats.conversations import FIELDS, columns_of, read_conversation, turn_warnings, unread
from trainer.formats.family import Family
from trainer.formats.fields import decode_if_json
from trainer.formats.messages import is_only_conversation
from trainer.formats.problems import BadRow
from trainer.formats.tools import tools_of
from trainer.formats.turns import CANONICAL

ROLES = ("role", "from", "speaker", "author", "sender", "participant")  # keys of the speaker, most likely first
TEXTS = ("content", "value", "text", "message", "utterance", "body")
OTHER_FAMILY_KEYS = (("role", "content"), ("from", "value"))
SPEAKERS = {
    **CANONICAL,
    **dict.fromkeys(("customer", "client", "caller"), "user"),
    **dict.fromkeys(("bot", "chatbot", "ai", "agent"), "assistant"),
}


@dataclass(frozen=True)
class TurnKeys:
    """The keys of a turn's speaker and text, and the role of each speaker by name."""

    role: str
    text: str
    speakers: dict[str, str] = field(default_factory=dict)

    def role_of(self, name: object) -> str | None:
        if not isinstance(name, str):
            return None
        return self.speakers.get(name) or SPEAKERS.get(name.strip().lower())

    def plain(self, turn: object, where: str) -> object:
        """The turn with OpenAI's keys. Raises BadRow for an unknown speaker."""
        if not isinstance(turn, dict):
            return turn
        others = {name: value for name, value in turn.items() if name not in (self.role, self.text, "role", "content")}
        if self.role in turn:
            if (role := self.role_of(turn[self.role])) is None:
                fix = "Say who is the user and who the assistant: choose the columns, or name them so."
                raise BadRow(f"{where}.{self.role}", "unknown speaker", fix)
            others["role"] = role
        return others | ({"content": turn[self.text]} if self.text in turn else {})


def detect_turn_keys(found: object) -> TurnKeys | None:
    """The keys of the turns in a list; None if another family reads them or if they are no turns."""
    first = found[0] if isinstance(found, list) and found else None
    if not isinstance(first, dict):
        return None
    keys = next((name for name in ROLES if name in first), ""), next((name for name in TEXTS if name in first), "")
    return TurnKeys(*keys) if all(keys) and keys not in OTHER_FAMILY_KEYS else None


def matches(row: dict[str, Any]) -> float:
    """How much a row looks like this family, from 0 to 1."""
    found = row.get(column_of(row))
    if not (keys := detect_turn_keys(found)) or not isinstance(found, list) or not is_only_conversation(row):
        return 0.0
    known = all(isinstance(turn, dict) and keys.role_of(turn.get(keys.role)) for turn in found[:2])
    return 1.0 if known else 0.0  # unknown speakers need a mapping by the user


def column_of(row: dict[str, Any]) -> str:
    return next((name for name in (*columns_of(row), "turns") if detect_turn_keys(row.get(name))), "messages")


def _keys_of(row: dict[str, Any], column: str) -> TurnKeys:
    return detect_turn_keys(row.get(column)) or TurnKeys("role", "content")


def read(row: dict[str, Any]) -> Content:
    """The row as a chat."""
    column = column_of(row)
    return read_turns(row, column, _keys_of(row, column))


def read_turns(row: dict[str, Any], column: str, keys: TurnKeys) -> Content:
    """The row as a chat, read with these keys. A BadRow names the keys as the file has them."""
    plain: dict[str, Any] = {name: row[name] for name in ("system", "tools", "functions") if name in row}
    if column in row:
        plain[column] = _plain(decode_if_json(row[column], column), column, keys)
    try:
        messages: list[Message] = read_conversation(plain, column)
    except BadRow as bad:
        place, _, key = bad.found.field.rpartition(".")
        key = {"role": keys.role, "content": keys.text}.get(key, key)
        raise BadRow(f"{place}.{key}" if place else key, bad.found.problem, bad.found.fix) from None
    return Content(messages=messages, tools=tools_of(row))


def _plain(found: object, column: str, keys: TurnKeys) -> object:
    if not isinstance(found, list):
        return found
    return [keys.plain(turn, f"{column}[{at}]") for at, turn in enumerate(found)]


def layout(row: dict[str, Any]) -> str:
    column = column_of(row)
    keys = _keys_of(row, column)
    return f'"{column[:40]}" with {keys.role} and {keys.text}'


def ignored(row: dict[str, Any]) -> Iterable[str]:
    column = column_of(row)
    keys, found = _keys_of(row, column), decode_if_json(row[column], column)
    own = {f"{column}.{keys.role}", f"{column}.{keys.text}"}
    return [*(name for name in turns.ignored_keys(found, column) if name not in own), *unread(row, column)]


def repaired(row: dict[str, Any]) -> Iterable[str]:
    column = column_of(row)
    return turn_warnings({column: _plain(decode_if_json(row[column], column), column, _keys_of(row, column))}, column)


FAMILY = Family(
    name="dialogue",
    kind="chat",
    saw="a conversation whose turns have a speaker and a text",
    fields=FIELDS,
    matches=matches,
    read=read,
    layout=layout,
    reads=lambda row: (column_of(row),),
    ignored=ignored,
    repaired=repaired,
)
