"""A large file of lines, checked in sections by several processes; what they find is put together in its order."""

import gc
import multiprocessing
import os
from array import array
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from trainer.formats.containers.json_text import LineReader
from trainer.formats.containers.record import CHUNK, Notes
from trainer.formats.detect import recognise
from trainer.formats.family import Family
from trainer.formats.findings import BadLines
from trainer.formats.problems import Problem
from trainer.formats.reading import Reading
from trainer.formats.row_writer import Pack
from trainer.formats.sieve import Sieve
from trainer.process import DIE_WITH_PARENT, die_with_parent

LARGE = 48 * 1024 * 1024  # from here on the start of processes pays off
SECTION = 4 * 1024 * 1024
MOST_PROCESSES = 4
OBJECTS = 100_000  # made between two looks for cycles, of which rows have none


@dataclass
class Section:
    """What was found in one section; its lines are counted from 1."""

    lines: int
    packs: list[Pack]
    refused: list[tuple[int, Problem, str]]
    sieve: Sieve
    notes: Notes

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


def processes() -> int:
    """How many may work at once; one means that sections are of no use."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(MOST_PROCESSES, available)


def worth_sections(reading: Reading) -> bool:
    """Whether a file is one of lines, and large enough."""
    return reading.lines_from >= 0 and reading.path.stat().st_size >= LARGE and processes() > 1


def read_sections(path: Path, rows: list[dict[str, Any]], *, start: int) -> Iterator[Section]:
    """The sections of a JSONL file from byte `start` on, in order. `rows`: its first, which tell the family."""
    size, count = path.stat().st_size, processes()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(count, context, initializer=_begin, initargs=(path, rows)) as pool:
        waiting: deque[Future[Section]] = deque()
        try:
            for at in range(start, size, SECTION):
                waiting.append(pool.submit(_read_section, at, min(at + SECTION, size), first=at == start))
                if len(waiting) > 2 * count:  # no more than that lies in memory
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


class Worker:
    """What a process needs to read sections."""

    def __init__(self, path: Path, family: Family | None) -> None:
        self.path = path
        self.family = family

    def read(self, start: int, end: int, *, first: bool) -> Section:
        """The lines that begin in these bytes."""
        refused, notes, packs = Refused(), Notes(), [Pack()]
        sieve = Sieve(self.family, refused, folder=self.path.parent)
        with self.path.open("rb", buffering=CHUNK) as file:
            position = file.seek(start if first else start - 1)
            position += 0 if first else _rest_of_line(file, end - position)
            lines = LineReader(file, notes)
            for record in lines.records(end - position):
                if content := sieve.take(record):
                    packs[-1].add(record.line, content)
                    if packs[-1].is_full:
                        packs.append(Pack())
        for pack in packs:
            pack.seal()
        sieve.family, sieve.bad_lines = None, BadLines(StringIO())  # which the other side has its own of
        return Section(lines.lines, packs, refused.kept, sieve, notes)


def _rest_of_line(file: Any, most: int) -> int:
    """Pass over what is left of a line that began before; how many bytes, `most` when it goes on behind them."""
    passed = 0
    while passed < most and (raw := file.readline(min(CHUNK, most - passed))):
        passed += len(raw)
        if raw.endswith(b"\n"):
            break
    return passed


_worker: list[Worker] = []  # of this process


def _begin(path: Path, rows: list[dict[str, Any]]) -> None:
    os.environ[DIE_WITH_PARENT] = "1"
    die_with_parent()
    gc.set_threshold(OBJECTS)
    _worker.append(Worker(path, recognise(rows).family))


def _read_section(start: int, end: int, *, first: bool) -> Section:
    return _worker[-1].read(start, end, first=first)
