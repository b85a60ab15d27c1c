"""JSON with the rows in a list inside one object, as in {"version": 1, "data": [ … ]}; also read row by row."""

import json
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

from trainer.formats.containers.json_text import SPACE, ListReader
from trainer.formats.containers.record import Notes, Record
from trainer.formats.containers.separated import NESTED_COLUMNS
from trainer.formats.problems import BadFile

# Common names of such a list. Another name is accepted if it cannot mean anything else.
COMMON_LIST_NAMES = frozenset(
    ("data", "rows", "records", "examples", "samples", "items", "entries", "instances", "dataset", "train", "training")
)
ROW_KEYS = frozenset(
    ("role", "from", "speaker", "author", "rank", "function", "type")
)  # keys in the lists of a single row, such as its messages
OBJECTS = re.compile(r"\[\s*\{")
_DECODER = json.JSONDecoder()


def list_of_rows(head: str) -> str:
    """The name of the list of rows in a file with this beginning; "" if each row stands by itself."""
    text = head.lstrip()
    first, _, rest = text.partition("\n")
    line = _decoded(first, 0)
    if not text.startswith("{") or (line and rest.strip()):
        return ""
    # A first line without an end in sight may be a row of JSONL.
    whole = line is not None or len(first) < len(text)
    return next((name for name, at in _members(text) if _holds_rows(text, at, name, whole=whole)), "")


def _decoded(text: str, at: int) -> tuple[Any, int] | None:
    try:
        return _DECODER.raw_decode(text, at)
    except (ValueError, RecursionError):
        return None


def _members(text: str) -> Iterator[tuple[str, int]]:
    """Name and offset of each member of the object, up to the first one whose end is not in sight."""
    at = 1
    while True:
        name = _decoded(text, _skip_space(text, at))
        colon = _skip_space(text, name[1]) if name else len(text)
        if not name or not isinstance(name[0], str) or text[colon : colon + 1] != ":":
            return
        at = _skip_space(text, colon + 1)
        yield name[0], at
        value = _decoded(text, at)
        at = _skip_space(text, value[1]) if value else len(text)
        if text[at : at + 1] != ",":
            return
        at += 1


def _skip_space(text: str, at: int) -> int:
    while text[at : at + 1] and text[at] in SPACE:
        at += 1
    return at


def _holds_rows(text: str, at: int, name: str, *, whole: bool) -> bool:
    opening = OBJECTS.match(text, at)
    if not opening or name in (*NESTED_COLUMNS, "functions"):
        return False
    row = _decoded(text, opening.end() - 1)
    if row is None:
        return name in COMMON_LIST_NAMES
    return (whole or name in COMMON_LIST_NAMES) and ROW_KEYS.isdisjoint(row[0])


class WrappedReader(ListReader):
    """Reads records from the list `inside` one JSON object; other members are skipped, and noted by name."""

    def __init__(self, file: BinaryIO, notes: Notes, inside: str) -> None:
        super().__init__(file, notes)
        self._inside = inside

    def records(self) -> Iterator[Record]:
        """Every row in order. Raises BadFile if the object itself is broken, or for a second list of rows."""
        self._peek()
        self._move(self._at + 1)  # the opening brace
        while (name := self._name()) != self._inside:
            self._skip(name)
            self._expect(",", "a comma is missing before the list of rows")
        yield from self._elements()
        while self._peek() == ",":
            self._move(self._at + 1)
            name = self._name()
            if OBJECTS.match(self._window, self._at):
                fix = f'Put the rows of "{name[:40]}" into a file of their own.'
                raise BadFile(self._line, "a second list of rows", fix, text=self._shown(self._at), field=name)
            self._skip(name)
        self._expect("}", "the object is not closed with }")
        if self._peek():
            raise BadFile(self._line, "more after the end of the object", "Put everything into one list.")

    def _name(self) -> str:
        if self._peek() != '"':
            self._fail(self._at, "the name of a member is missing")
        name: str = self._element().value
        self._expect(":", "a colon is missing after a name")
        self._peek()
        return name

    def _skip(self, name: str) -> None:
        self._element()
        self._notes.beside.append(name)

    def _expect(self, mark: str, problem: str) -> None:
        if self._peek() != mark:
            self._fail(self._at, problem)
        self._move(self._at + 1)
