"""JSON whose rows stand in a list inside one object, as in {"version": 1, "data": [ … ]}: read row by row too."""

import json
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

from trainer.formats.containers.json_text import SPACE, ListReader
from trainer.formats.containers.record import Notes, Record
from trainer.formats.containers.separated import NEVER_TEXT
from trainer.formats.problems import BadFile

# What such a list is called. One of another name is taken for one where nothing else can be meant.
USUAL = frozenset(
    ("data", "rows", "records", "examples", "samples", "items", "entries", "instances", "dataset", "train", "training")
)
OF_A_ROW = frozenset(
    ("role", "from", "speaker", "author", "rank", "function", "type")
)  # in what a row's own lists hold
OBJECTS = re.compile(r"\[\s*\{")
_DECODER = json.JSONDecoder()


def list_of_rows(head: str) -> str:
    """The name of the list that holds the rows of a file with this beginning; "" where each row stands by itself."""
    text = head.lstrip()
    first, _, rest = text.partition("\n")
    line = _decoded(first, 0)
    if not text.startswith("{") or (line and rest.strip()):
        return ""
    # A first line of which no end is seen may be a row of a file of lines.
    whole = line is not None or len(first) < len(text)
    return next((name for name, at in _members(text) if _holds_rows(text, at, name, whole=whole)), "")


def _decoded(text: str, at: int) -> tuple[Any, int] | None:
    try:
        return _DECODER.raw_decode(text, at)
    except (ValueError, RecursionError):
        return None


def _members(text: str) -> Iterator[tuple[str, int]]:
    """Name and place of each member of the object, up to the first of which no end is seen."""
    at = 1
    while True:
        name = _decoded(text, _behind_space(text, at))
        colon = _behind_space(text, name[1]) if name else len(text)
        if not name or not isinstance(name[0], str) or text[colon : colon + 1] != ":":
            return
        at = _behind_space(text, colon + 1)
        yield name[0], at
        value = _decoded(text, at)
        at = _behind_space(text, value[1]) if value else len(text)
        if text[at : at + 1] != ",":
            return
        at += 1


def _behind_space(text: str, at: int) -> int:
    while text[at : at + 1] and text[at] in SPACE:
        at += 1
    return at


def _holds_rows(text: str, at: int, name: str, *, whole: bool) -> bool:
    opening = OBJECTS.match(text, at)
    if not opening or name in (*NEVER_TEXT, "functions"):
        return False
    row = _decoded(text, opening.end() - 1)
    if row is None:
        return name in USUAL
    return (whole or name in USUAL) and OF_A_ROW.isdisjoint(row[0])


class WrappedReader(ListReader):
    """Takes the records out of the list `inside` one JSON object; what stands beside it is passed over, by name."""

    def __init__(self, file: BinaryIO, notes: Notes, inside: str) -> None:
        super().__init__(file, notes)
        self._inside = inside

    def records(self) -> Iterator[Record]:
        """Every row in order. Raises BadFile where the object itself is broken, and for a second list of rows."""
        self._peek()
        self._move(self._at + 1)  # the opening brace
        while (name := self._name()) != self._inside:
            self._pass_over(name)
            self._expect(",", "a comma is missing before the list of rows")
        yield from self._elements()
        while self._peek() == ",":
            self._move(self._at + 1)
            name = self._name()
            if OBJECTS.match(self._window, self._at):
                fix = f'Put the rows of "{name[:40]}" into a file of their own.'
                raise BadFile(self._line, "a second list of rows", fix, text=self._shown(self._at), field=name)
            self._pass_over(name)
        self._expect("}", "the object is not closed with }")
        if self._peek():
            raise BadFile(self._line, "more after the end of the object", "Put everything into one list.")

    def _name(self) -> str:
        if self._peek() != '"':
            self._broken(self._at, "the name of a member is missing")
        name: str = self._element().value
        self._expect(":", "a colon is missing after a name")
        self._peek()
        return name

    def _pass_over(self, name: str) -> None:
        self._element()
        self._notes.beside.append(name)

    def _expect(self, mark: str, problem: str) -> None:
        if self._peek() != mark:
            self._broken(self._at, problem)
        self._move(self._at + 1)
