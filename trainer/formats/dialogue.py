"""Turns under other names than OpenAI's and ShareGPT's, such as `speaker` and `text`: known by usual names, or told."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from trainer.formats import turns
from trainer.formats.canonical import Content, Message
from trainer.formats.conversations import FIELDS, columns_of, odd_turns, read_conversation, unread
from trainer.formats.family import Family
from trainer.formats.fields import unpacked
from trainer.formats.messages import is_all
from trainer.formats.problems import BadRow
from trainer.formats.tools import tools_of
from trainer.formats.turns import CANONICAL

ROLES = ("role", "from", "speaker", "author", "sender", "participant")  # keys of who speaks, the likeliest first
TEXTS = ("content", "value", "text", "message", "utterance", "body")
OF_OTHERS = (("role", "content"), ("from", "value"))
SPEAKERS = {
    **CANONICAL,
    **dict.fromkeys(("customer", "client", "caller"), "user"),
    **dict.fromkeys(("bot", "chatbot", "ai", "agent"), "assistant"),
}


@dataclass(frozen=True)
class Turns:
    """How the turns of a conversation are written: the keys of speaker and text, and the roles of speakers by name."""

    role: str
    text: str
    speakers: dict[str, str] = field(default_factory=dict)

    def role_of(self, name: object) -> str | None:
        if not isinstance(name, str):
            return None
        return self.speakers.get(name) or SPEAKERS.get(name.strip().lower())

    def plain(self, turn: object, where: str) -> object:
        """The turn with OpenAI's keys. Raises BadRow for a speaker of whom nothing is known."""
        if not isinstance(turn, dict):
            return turn
        others = {name: value for name, value in turn.items() if name not in (self.role, self.text, "role", "content")}
        if self.role in turn:
            if (role := self.role_of(turn[self.role])) is None:
                fix = "Say who is the user and who the assistant: choose the columns, or name them so."
                raise BadRow(f"{where}.{self.role}", "unknown speaker", fix)
            others["role"] = role
        return others | ({"content": turn[self.text]} if self.text in turn else {})


def turns_of(found: object) -> Turns | None:
    """How the turns of a list are written; None for those that other families read, and for what is none."""
    first = found[0] if isinstance(found, list) and found else None
    if not isinstance(first, dict):
        return None
    keys = next((name for name in ROLES if name in first), ""), next((name for name in TEXTS if name in first), "")
    return Turns(*keys) if all(keys) and keys not in OF_OTHERS else None


def matches(row: dict[str, Any]) -> float:
    """How much a row looks like this family, 0 to 1."""
    found = row.get(column_of(row))
    if not (how := turns_of(found)) or not isinstance(found, list) or not is_all(row):
        return 0.0
    known = all(isinstance(turn, dict) and how.role_of(turn.get(how.role)) for turn in found[:2])
    return 1.0 if known else 0.0  # of speakers that nobody knows, a person has to say who is who


def column_of(row: dict[str, Any]) -> str:
    return next((name for name in (*columns_of(row), "turns") if turns_of(row.get(name))), "messages")


def _how(row: dict[str, Any], column: str) -> Turns:
    return turns_of(row.get(column)) or Turns("role", "content")


def read(row: dict[str, Any]) -> Content:
    """The row as chat."""
    column = column_of(row)
    return read_turns(row, column, _how(row, column))


def read_turns(row: dict[str, Any], column: str, how: Turns) -> Content:
    """The row as chat, its turns written so. Raises BadRow, with the keys that the file has."""
    plain: dict[str, Any] = {name: row[name] for name in ("system", "tools", "functions") if name in row}
    if column in row:
        plain[column] = _plain(unpacked(row[column], column), column, how)
    try:
        messages: list[Message] = read_conversation(plain, column)
    except BadRow as bad:
        place, _, key = bad.found.field.rpartition(".")
        key = {"role": how.role, "content": how.text}.get(key, key)
        raise BadRow(f"{place}.{key}" if place else key, bad.found.problem, bad.found.fix) from None
    return Content(messages=messages, tools=tools_of(row))


def _plain(found: object, column: str, how: Turns) -> object:
    if not isinstance(found, list):
        return found
    return [how.plain(turn, f"{column}[{at}]") for at, turn in enumerate(found)]


def layout(row: dict[str, Any]) -> str:
    column = column_of(row)
    how = _how(row, column)
    return f'"{column[:40]}" with {how.role} and {how.text}'


def ignored(row: dict[str, Any]) -> Iterable[str]:
    column = column_of(row)
    how, found = _how(row, column), unpacked(row[column], column)
    own = {f"{column}.{how.role}", f"{column}.{how.text}"}
    return [*(name for name in turns.passed_over(found, column) if name not in own), *unread(row, column)]


def repaired(row: dict[str, Any]) -> Iterable[str]:
    column = column_of(row)
    return odd_turns({column: _plain(unpacked(row[column], column), column, _how(row, column))}, column)


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
