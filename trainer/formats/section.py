"""One section of a file of lines: usual rows are read many at a time, all others one by one."""

import os
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any, BinaryIO

from orjson import JSONDecodeError, dumps, loads

from trainer.formats.canonical import Message
from trainer.formats.containers.json_text import LineReader
from trainer.formats.containers.record import CHUNK, Notes, Record
from trainer.formats.family import Family, never
from trainer.formats.findings import BadLines
from trainer.formats.problems import Problem
from trainer.formats.row_writer import Pack
from trainer.formats.sieve import Sieve
from trainer.formats.string_counts import StringCounts

BLOCK = 256 * 1024  # bytes; what is done to one finds it in the processor's cache


@dataclass
class Section:
    """What was found in one section; its lines are counted from 1."""

    lines: int
    packs: list[Pack]
    refused: list[tuple[int, Problem, str]]
    sieve: Sieve
    notes: Notes

    def moved(self, move: Callable[[Any], Any]) -> "Section":
        """The same with the large pieces of its rows elsewhere."""
        for pack in self.packs:
            pack.move(move)
        return self

    def begin_at(self, lines_before: int) -> None:
        """Count the lines of its rows from the start of the file."""
        for pack in self.packs:
            pack.lines = array("q", [line + lines_before for line in pack.lines])


class Refused(BadLines):
    """Keeps bad lines for the process that knows where the section begins."""

    def __init__(self) -> None:
        super().__init__(StringIO())
        self.kept: list[tuple[int, Problem, str]] = []

    def add(self, line: int, found: Problem, text: str) -> None:
        self.kept.append((line, found, text))


class SectionReader:
    """Reads the section of a file that lies between two bytes: the lines that begin there."""

    def __init__(self, path: Path, family: Family | None) -> None:
        self._refused, self._notes = Refused(), Notes()
        self._sieve = Sieve(family, self._refused, folder=path.parent)
        self._packs = [Pack()]
        self._path = path
        self._usual = family.usual if family else never

    def read(self, start: int, end: int, *, first: bool) -> Section:
        with self._path.open("rb", buffering=CHUNK) as file:
            at = start if first else _next_line(file, start, end)
            self._lines = LineReader(file, self._notes)
            while at < end:
                block = os.pread(file.fileno(), min(BLOCK, end - at), at)
                whole = block[: block.rfind(b"\n") + 1]
                if whole:
                    self._take_block(whole)
                    at += len(whole)
                elif block:  # of a line that goes on behind it
                    file.seek(at)
                    for record in self._lines.records(1):
                        self._take(record)
                    at = file.tell()
                else:
                    break
        for pack in self._packs:
            pack.seal()
        self._sieve.family, self._sieve.bad_lines = None, BadLines(StringIO())  # which the other side has its own of
        return Section(self._lines.lines, self._packs, self._refused.kept, self._sieve, self._notes)

    def _take_block(self, block: bytes) -> None:
        """Every line of it. Nearly always all rows are usual ones, and hold all the strings that their lines hold."""
        before, strings = self._lines.lines, StringCounts(block)
        lines = BytesIO(block).readlines()  # ten times as fast as to split them
        try:
            rows = list(map(loads, lines))
        except JSONDecodeError:
            rows = [None]
        found = list(map(self._usual, rows)) if {*map(type, rows)} == {dict} else [None]
        if None not in found and strings.total == sum([one[1] for one in found if one]):
            self._lines.lines += len(lines)
            numbers = list(range(before + 1, self._lines.lines + 1))
            self._take_usual(numbers, [one[0] for one in found if one])
        else:
            self._take_lines(lines, strings.by_line())

    def _take_lines(self, lines: list[bytes], strings: list[int]) -> None:
        """One line after the other: those that are usual many at a time."""
        numbers: list[int] = []  # of usual rows in a row
        said: list[list[Message]] = []
        for raw, there in zip(lines, strings, strict=True):
            self._lines.lines += 1
            try:
                row = loads(raw) if there > 0 else None
                found = self._usual(row) if type(row) is dict else None
            except JSONDecodeError:
                found = None
            if found and found[1] == there:
                numbers.append(self._lines.lines)
                said.append(found[0])
                continue
            self._take_usual(numbers, said)
            numbers, said = [], []
            self._take(self._lines.record(raw))
        self._take_usual(numbers, said)

    def _take_usual(self, numbers: list[int], said: list[list[Message]]) -> None:
        self._sieve.statistics.add_texts(said)
        while numbers:
            pack = self._pack()
            room = pack.room
            pack.add_messages(numbers[:room], [dumps(messages) for messages in said[:room]])
            numbers, said = numbers[room:], said[room:]

    def _take(self, record: Record | None) -> None:
        if record and (content := self._sieve.take(record)):
            self._pack().add(record.line, content)

    def _pack(self) -> Pack:
        """The one that the next row goes into."""
        if not self._packs[-1].room:
            self._packs[-1].seal()
            self._packs.append(Pack())
        return self._packs[-1]


def _next_line(file: BinaryIO, start: int, end: int) -> int:
    """Where the first line begins that begins at or after `start`, at most `end`."""
    at = file.seek(start - 1)
    while at < end and (raw := file.readline(min(CHUNK, end - at))):
        at += len(raw)
        if raw.endswith(b"\n"):
            break
    return at
