"""Reads one section of a JSONL file: blocks of plain rows in bulk, all other rows one by one."""

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
from trainer.formats.family import Family, no_fast_path
from trainer.formats.findings import BadLines
from trainer.formats.problems import Problem
from trainer.formats.row_writer import RowGroup
from trainer.formats.sieve import Sieve
from trainer.formats.string_counts import StringCounts

BLOCK = 256 * 1024  # bytes; fits into the CPU cache


@dataclass
class Section:
    """The result for one section; lines are counted from 1."""

    lines: int
    groups: list[RowGroup]
    rejected: list[tuple[int, Problem, str]]
    sieve: Sieve
    notes: Notes

    def moved(self, move: Callable[[Any], Any]) -> "Section":
        """The same with its large buffers moved, see RowGroup.move."""
        for group in self.groups:
            group.move(move)
        return self

    def offset_lines(self, lines_before: int) -> None:
        """Count the rows' lines from the start of the file."""
        for group in self.groups:
            group.lines = array("q", [line + lines_before for line in group.lines])


class RejectedLines(BadLines):
    """Keeps bad lines for the parent process, which knows where the section begins."""

    def __init__(self) -> None:
        super().__init__(StringIO())
        self.kept: list[tuple[int, Problem, str]] = []

    def add(self, line: int, found: Problem, text: str) -> None:
        self.kept.append((line, found, text))


class SectionReader:
    """Reads the lines of a file that begin between two byte offsets."""

    def __init__(self, path: Path, family: Family | None) -> None:
        self._rejected, self._notes = RejectedLines(), Notes()
        self._sieve = Sieve(family, self._rejected, folder=path.parent)
        self._groups = [RowGroup()]
        self._path = path
        self._fast_path = family.fast_path if family else no_fast_path

    def read(self, start: int, end: int, *, first: bool) -> Section:
        with self._path.open("rb", buffering=CHUNK) as file:
            at = start if first else _next_line(file, start, end)
            self._lines = LineReader(file, self._notes)
            while at < end:
                block = os.pread(file.fileno(), min(BLOCK, end - at), at)
                complete = block[: block.rfind(b"\n") + 1]
                if complete:
                    self._take_block(complete)
                    at += len(complete)
                elif block:  # a line longer than the block
                    file.seek(at)
                    for record in self._lines.records(1):
                        self._take(record)
                    at = file.tell()
                else:
                    break
        for group in self._groups:
            group.seal()
        self._sieve.family, self._sieve.bad_lines = None, BadLines(StringIO())  # the parent has its own
        return Section(self._lines.lines, self._groups, self._rejected.kept, self._sieve, self._notes)

    def _take_block(self, block: bytes) -> None:
        """Read a block of lines. Usually all rows take the fast path, and their string counts match."""
        before, strings = self._lines.lines, StringCounts(block)
        lines = BytesIO(block).readlines()  # ten times as fast as split()
        try:
            rows = list(map(loads, lines))
        except JSONDecodeError:
            rows = [None]
        found = list(map(self._fast_path, rows)) if {*map(type, rows)} == {dict} else [None]
        if None not in found and strings.total == sum([one[1] for one in found if one]):
            self._lines.lines += len(lines)
            numbers = list(range(before + 1, self._lines.lines + 1))
            self._take_fast(numbers, [one[0] for one in found if one])
        else:
            self._take_lines(lines, strings.by_line())

    def _take_lines(self, lines: list[bytes], strings: list[int]) -> None:
        """Read line by line, with consecutive fast-path rows in bulk."""
        numbers: list[int] = []  # of consecutive fast-path rows
        conversations: list[list[Message]] = []
        for raw, count in zip(lines, strings, strict=True):
            self._lines.lines += 1
            try:
                row = loads(raw) if count > 0 else None
                found = self._fast_path(row) if type(row) is dict else None
            except JSONDecodeError:
                found = None
            if found and found[1] == count:
                numbers.append(self._lines.lines)
                conversations.append(found[0])
                continue
            self._take_fast(numbers, conversations)
            numbers, conversations = [], []
            self._take(self._lines.record(raw))
        self._take_fast(numbers, conversations)

    def _take_fast(self, numbers: list[int], conversations: list[list[Message]]) -> None:
        self._sieve.statistics.add_texts(conversations)
        while numbers:
            group = self._group()
            room = group.room
            group.add_messages(numbers[:room], [dumps(messages) for messages in conversations[:room]])
            numbers, conversations = numbers[room:], conversations[room:]

    def _take(self, record: Record | None) -> None:
        if record and (content := self._sieve.take(record)):
            self._group().add(record.line, content)

    def _group(self) -> RowGroup:
        """The group for the next row."""
        if not self._groups[-1].room:
            self._groups[-1].seal()
            self._groups.append(RowGroup())
        return self._groups[-1]


def _next_line(file: BinaryIO, start: int, end: int) -> int:
    """The offset of the first line that begins at or after `start`, at most `end`."""
    at = file.seek(start - 1)
    while at < end and (raw := file.readline(min(CHUNK, end - at))):
        at += len(raw)
        if raw.endswith(b"\n"):
            break
    return at
