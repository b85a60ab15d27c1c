"""A large file of lines, checked in sections by several processes; what they find is put together in its order."""

import gc
import multiprocessing
import os
import sys
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.formats.detect import recognise
from trainer.formats.family import Family
from trainer.formats.reading import Reading
from trainer.formats.section import Section, SectionReader
from trainer.formats.shared_slots import SharedSlots
from trainer.process import DIE_WITH_PARENT, die_with_parent, keep_freed_memory

LARGE = 48 * 1024 * 1024  # from here on the start of processes pays off
SECTION = 4 * 1024 * 1024
SLOT = 4 * SECTION  # what is made of a section seldom takes more
MOST_PROCESSES = 4
OBJECTS = 100_000  # made between two looks for cycles, of which rows have none


def processes() -> int:
    """How many may work at once; one means that sections are of no use."""
    if sys.platform != "linux":  # elsewhere a process cannot be parted in two safely
        return 1
    return min(MOST_PROCESSES, len(os.sched_getaffinity(0)))


def worth_sections(reading: Reading) -> bool:
    """Whether a file is one of lines, and large enough."""
    return reading.lines_from >= 0 and reading.path.stat().st_size >= LARGE and processes() > 1


def read_sections(path: Path, rows: list[dict[str, Any]], *, start: int) -> Iterator[Section]:
    """The sections of a JSONL file from byte `start` on, in order. `rows`: its first, which tell the family.

    Each is to be used before the next is asked for.
    """
    keep_freed_memory()
    size, count = path.stat().st_size, processes()
    slots = SharedSlots(2 * count + 1, SLOT)  # no more than that waits in memory
    context = multiprocessing.get_context("fork")  # which has all modules: to load them took as long as 20,000 rows
    _job[:] = [_Job(path, recognise(rows).family, slots)]
    with ProcessPoolExecutor(count, context, initializer=_begin) as pool:
        waiting: deque[Future[Section]] = deque()
        try:
            for number, at in enumerate(range(start, size, SECTION)):
                if len(waiting) == slots.count:
                    yield waiting.popleft().result().moved(slots.look)
                work = (number % slots.count, at, min(at + SECTION, size))
                waiting.append(pool.submit(_read_section, *work, first=at == start))
            while waiting:
                yield waiting.popleft().result().moved(slots.look)
        finally:
            pool.shutdown(cancel_futures=True)


@dataclass(frozen=True)
class _Job:
    path: Path
    family: Family | None
    slots: SharedSlots


_job: list[_Job] = []  # what the processes of this one work on


def _begin() -> None:
    os.environ[DIE_WITH_PARENT] = "1"
    die_with_parent()
    gc.set_threshold(OBJECTS)


def _read_section(slot: int, start: int, end: int, *, first: bool) -> Section:
    [job] = _job
    section = SectionReader(job.path, job.family).read(start, end, first=first)
    return section.moved(job.slots.filling(slot))
