"""Checks a large JSONL file in sections by several processes; results are merged in file order."""

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

LARGE = 48 * 1024 * 1024  # smaller files do not repay the start of processes
SECTION = 4 * 1024 * 1024
SLOT = 4 * SECTION  # enough for the output of nearly every section
MAX_PROCESSES = 4
GC_THRESHOLD = 100_000  # allocations between garbage collections; rows form no cycles


def processes() -> int:
    """How many processes to use; 1 disables sections."""
    if sys.platform != "linux":  # fork is not safe elsewhere
        return 1
    return min(MAX_PROCESSES, len(os.sched_getaffinity(0)))


def worth_sections(reading: Reading) -> bool:
    """Whether a file is JSONL and large enough."""
    return reading.lines_from >= 0 and reading.path.stat().st_size >= LARGE and processes() > 1


def read_sections(path: Path, rows: list[dict[str, Any]], *, start: int) -> Iterator[Section]:
    """The sections of a JSONL file from byte `start` on, in order. `rows`: its first rows, to detect the family.

    Use each section before asking for the next: its memory is reused.
    """
    keep_freed_memory()
    size, count = path.stat().st_size, processes()
    slots = SharedSlots(2 * count + 1, SLOT)  # bounds the results waiting in memory
    context = multiprocessing.get_context("fork")  # keeps modules imported: importing them took as long as 20,000 rows
    _job[:] = [_Job(path, recognise(rows).family, slots)]
    with ProcessPoolExecutor(count, context, initializer=_start_worker) as pool:
        waiting: deque[Future[Section]] = deque()
        try:
            for number, at in enumerate(range(start, size, SECTION)):
                if len(waiting) == slots.count:
                    yield waiting.popleft().result().moved(slots.read)
                work = (number % slots.count, at, min(at + SECTION, size))
                waiting.append(pool.submit(_read_section, *work, first=at == start))
            while waiting:
                yield waiting.popleft().result().moved(slots.read)
        finally:
            pool.shutdown(cancel_futures=True)


@dataclass(frozen=True)
class _Job:
    path: Path
    family: Family | None
    slots: SharedSlots


_job: list[_Job] = []  # read by the forked workers


def _start_worker() -> None:
    os.environ[DIE_WITH_PARENT] = "1"
    die_with_parent()
    gc.set_threshold(GC_THRESHOLD)


def _read_section(slot: int, start: int, end: int, *, first: bool) -> Section:
    [job] = _job
    section = SectionReader(job.path, job.family).read(start, end, first=first)
    return section.moved(job.slots.writer_for(slot))
