"""Separated values (RFC 4180): comma, semicolon or tab; cells over several lines; physical line numbers."""

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
MAX_COLUMNS = 1000
HEADER_CELL = re.compile(  # a header cell, for files not named .csv
    r"[\w.\-/#\[\]]+( [\w.\-/#\[\]]+){0,3}"
)  # a header cell, in files not named .csv
FIX_QUOTES = 'Put cells with separators, quotes or line ends into quotes, and write a quote inside as "".'
LABELS = {"true": True, "false": False, "1": True, "0": False}
LABEL_COLUMNS = ("label", "kto_tag")
TURN_KEYS = frozenset({"role", "from"})
NESTED_COLUMNS = (
    "messages",
    "conversations",
    "history",
    "tools",
    "tool_calls",
)  # hold lists or objects; an empty cell is null there


def find_delimiter(head: str, *, named: bool) -> str:
    """The delimiter of a file with these first lines; "" if it is no table.

    `named`: whether the file's name says that it is a table. Otherwise it needs a plausible header, and as many cells
    in every row.
    """
    lines = head.splitlines(keepends=True)
    best, most = "", 1
    for delimiter in DELIMITERS:
        rows = _rows_of(lines, delimiter)
        columns = len(rows[0]) if rows else 0
        alike = sum(len(row) == columns for row in rows[1:])
        wanted = 0.5 if named else 1
        if columns > most and alike >= wanted * len(rows[1:]) and (named or _looks_like_header(rows)):
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
    return rows[:-1] if len(rows) > 2 else rows  # the last row may be cut off


def _looks_like_header(rows: list[list[str]]) -> bool:
    names = rows[0]
    return len(rows) > 1 and len(set(names)) == len(names) and all(HEADER_CELL.fullmatch(name) for name in names)


class Lines:
    """The physical lines of a file, for csv.reader; `found` is the problem with the current row."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.number = 0  # of the last line
        self.found: Problem | None = None
        self.size = 0  # of the current row
        self.first = ""  # the current row's first line

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
            # Either a huge row, or a quote that is never closed, which makes all the rest one cell.
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
    """Every row below the header as an object of texts. Raises BadFile for an impossible header."""
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
    if len(names) > MAX_COLUMNS:
        raise BadFile(line, f"more than {MAX_COLUMNS:,} columns", "Remove the columns that are not needed.")
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
    """A cell as text, except in columns of lists, objects or labels."""
    if (plain := unguard(cell)) != cell:
        notes["guarded cells"] += 1
        cell = plain
    if name in NESTED_COLUMNS and cell[:1] in ("[", "{"):
        notes["cells of JSON"] += 1
        return parse(cell)
    if cell.startswith("[{") and (turns := _turns(cell)):
        notes["cells of JSON"] += 1
        return turns
    if name in NESTED_COLUMNS and not cell:
        return None
    if name in LABEL_COLUMNS and cell.lower() in LABELS:
        notes["cells of labels"] += 1
        return LABELS[cell.lower()]
    return cell


def _turns(cell: str) -> list[Any] | None:
    """The messages in a cell that holds just messages; None for text that merely begins like them."""
    try:
        found = parse(cell)
    except (ValueError, RecursionError):
        return None
    if isinstance(found, list) and all(isinstance(one, dict) and not TURN_KEYS.isdisjoint(one) for one in found):
        return found
    return None
