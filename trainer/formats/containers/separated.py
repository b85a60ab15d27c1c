"""Separated values (RFC 4180): commas, semicolons or tabs, quoted cells over several lines, physical line numbers."""

import csv
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, BinaryIO

from trainer.formats.cells import unguard
from trainer.formats.containers.encodings import not_utf8
from trainer.formats.containers.record import MAX_RECORD, NUL, SEPARATORS, TOO_LONG, Notes, Record
from trainer.formats.problems import BadFile, Problem
from trainer.formats.strict import parse

DELIMITERS = (",", "\t", ";")
MOST_COLUMNS = 1000
NAME_LIKE = re.compile(r"[\w.\-/#\[\]]+( [\w.\-/#\[\]]+){0,3}")  # a head's cell, when nothing else says that it is one
FIX_QUOTES = 'Put cells with separators, quotes or line ends into quotes, and write a quote inside as "".'
LABELS = {"true": True, "false": False, "1": True, "0": False}
OF_LABELS = ("label", "kto_tag")
TURN = frozenset({"role", "from"})
NEVER_TEXT = ("messages", "conversations", "history", "tools", "tool_calls")  # an empty cell there is no empty text


def find_delimiter(head: str, *, named: bool) -> str:
    """What separates the cells of a file with these first lines; "" when it holds none.

    `named`: whether the file's name says that it does. One that does not must have a head that looks like one, and
    as many cells in every row.
    """
    lines = head.splitlines(keepends=True)
    best, most = "", 1
    for delimiter in DELIMITERS:
        rows = _rows_of(lines, delimiter)
        columns = len(rows[0]) if rows else 0
        alike = sum(len(row) == columns for row in rows[1:])
        wanted = 0.5 if named else 1
        if columns > most and alike >= wanted * len(rows[1:]) and (named or _like_a_head(rows)):
            best, most = delimiter, columns
    return best or ("," if named else "")


def _rows_of(lines: list[str], delimiter: str) -> list[list[str]]:
    rows = []
    try:
        for row in csv.reader(lines, delimiter=delimiter):
            if row:
                rows.append(row)
    except csv.Error:
        return []
    return rows[:-1] if len(rows) > 2 else rows  # the last may be cut off


def _like_a_head(rows: list[list[str]]) -> bool:
    names = rows[0]
    return len(rows) > 1 and len(set(names)) == len(names) and all(NAME_LIKE.fullmatch(name) for name in names)


class Lines:
    """The physical lines of a file as text, for csv.reader; `found` is what is wrong with the row being read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.number = 0  # of the line given last
        self.found: Problem | None = None
        self.size = 0  # of the row being read
        self.first = ""  # its first characters

    def begin(self) -> None:
        self.found, self.size, self.first = None, 0, ""

    def __iter__(self) -> "Lines":
        return self

    def __next__(self) -> str:
        raw = self._file.readline(MAX_RECORD + 1)
        if not raw:
            raise StopIteration
        self.number += 1
        self.size += len(raw)
        if self.size > MAX_RECORD:
            # Either a row out of proportion, or a quote that is never closed: all that follows would be one cell.
            raise BadFile(self.number, TOO_LONG.problem, f"{TOO_LONG.fix} {FIX_QUOTES}", text=self.first)
        if b"\0" in raw:
            self.found = self.found or NUL
        try:
            line = raw.decode()
        except UnicodeDecodeError as error:
            self.found = self.found or not_utf8(raw, error)
            line = raw.decode(errors="replace")
        self.first = self.first or line
        return line


def read_separated(file: BinaryIO, delimiter: str, notes: Notes) -> Iterator[Record]:
    """Every row below the head as an object of texts. Raises BadFile for a head that cannot be one."""
    csv.field_size_limit(MAX_RECORD + 1)
    lines = Lines(file)
    rows = csv.reader(lines, delimiter=delimiter, strict=True)
    names: list[str] = []
    while True:
        lines.begin()
        line = lines.number + 1
        try:
            cells = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            if not names or "end of data" in str(error):
                raise BadFile(line, f"invalid CSV: {error}", FIX_QUOTES, text=lines.first) from None
            yield Record(line, lines.first, found=Problem("", f"invalid CSV: {error}", FIX_QUOTES))
            continue
        if not cells:
            notes["blank lines"] += 1
            continue
        if not names:
            names = _names(cells, line, notes)
            continue
        notes["separators"] += any(mark in cell for cell in cells for mark in SEPARATORS)
        yield _record(line, cells, names, lines, notes)


def _names(cells: list[str], line: int, notes: Notes) -> list[str]:
    names = [unguard(cell).strip() for cell in cells]
    notes["trimmed names"] += sum(name != cell for name, cell in zip(names, cells, strict=True))
    notes["empty names"] += names.count("")
    names = [name or f"column {number}" for number, name in enumerate(names, 1)]
    if len(names) > MOST_COLUMNS:
        raise BadFile(line, f"more than {MOST_COLUMNS:,} columns", "Remove the columns that are not needed.")
    if twice := next((name for name in names if names.count(name) > 1), ""):
        raise BadFile(line, "the same column twice", "Rename or remove one of the two.", field=twice)
    return names


def _record(line: int, cells: list[str], names: list[str], lines: Lines, notes: Notes) -> Record:
    found = lines.found
    if not found and len(cells) != len(names):
        first = names[len(cells)] if len(cells) < len(names) else f"column {len(names) + 1}"
        found = Problem(first, f"{len(cells):,} cells under {len(names):,} columns", FIX_QUOTES)
    if found is NUL:
        found = replace(NUL, field=next((name for name, cell in zip(names, cells, strict=False) if "\0" in cell), ""))
    if found:
        return Record(line, lines.first.rstrip("\r\n"), found=found)
    value: dict[str, Any] = {}
    for name, cell in zip(names, cells, strict=True):
        try:
            value[name] = _value(name, cell, notes)
        except (ValueError, RecursionError) as error:
            fix = "Write a list or an object here as JSON."
            return Record(line, lines.first, found=Problem(name, f"invalid JSON in the cell: {error}", fix))
    return Record(line, lines.first.rstrip("\r\n") if lines.number == line else "", value)


def _value(name: str, cell: str, notes: Notes) -> Any:
    """A cell is text, but where its column holds lists, objects or labels."""
    if (plain := unguard(cell)) != cell:
        notes["guarded cells"] += 1
        cell = plain
    if name in NEVER_TEXT and cell[:1] in ("[", "{"):
        notes["cells of JSON"] += 1
        return parse(cell)
    if cell.startswith("[{") and (turns := _turns(cell)):
        notes["cells of JSON"] += 1
        return turns
    if name in NEVER_TEXT and not cell:
        return None
    if name in OF_LABELS and cell.lower() in LABELS:
        notes["cells of labels"] += 1
        return LABELS[cell.lower()]
    return cell


def _turns(cell: str) -> list[Any] | None:
    """The messages in a cell that holds nothing else; None for text that begins like them."""
    try:
        found = parse(cell)
    except (ValueError, RecursionError):
        return None
    if isinstance(found, list) and all(isinstance(one, dict) and not TURN.isdisjoint(one) for one in found):
        return found
    return None
