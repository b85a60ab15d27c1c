"""The trainer as a process: events on the real stdout, a polite end on signals, and no life after its parent's."""

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn, TextIO

from trainer.events import Event, encode

DIE_WITH_PARENT = "LOWRANK_DIE_WITH_PARENT"
PARENT_POLL_SECONDS = 1.0
PR_SET_PDEATHSIG = 1
STOPPING = (signal.SIGTERM, signal.SIGINT)  # ask for an end
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3  # what malloc.h calls what can be told to the C library
KEEPING = {M_TRIM_THRESHOLD: 1 << 28, M_TOP_PAD: 1 << 24, M_MMAP_THRESHOLD: 1 << 28}
GIVING_BACK = {M_MMAP_THRESHOLD: 1 << 20}
# What glibc comes to by itself, once blocks of 32 MB were freed; who tells it anything ends that.
USUAL = {M_TRIM_THRESHOLD: 1 << 26, M_MMAP_THRESHOLD: 1 << 25}


class EventStream:
    """Writes numbered events to what was stdout; stdout becomes stderr, so no library can write between them."""

    def __init__(self) -> None:
        sys.stdout.flush()
        self._file: TextIO = os.fdopen(os.dup(1), "w", encoding="utf-8", newline="\n")
        os.dup2(2, 1)
        self._number = 0

    def fileno(self) -> int:
        """Of what was stdout, for a process that writes its own events there."""
        return self._file.fileno()

    def emit(self, event: Event) -> None:
        self._number += 1
        self._file.write(encode(self._number, event) + "\n")
        self._file.flush()


class StopRequest:
    """Whether somebody asked this process to stop. The first signal and any later one mean the same.

    One that came before, while `launch` had them blocked for this process, counts as well.
    """

    def __init__(self) -> None:
        self._requested = False
        for number in STOPPING:
            signal.signal(number, self._request)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)

    def __call__(self) -> bool:
        return self._requested

    def _request(self, number: int, frame: FrameType | None) -> None:
        self._requested = True


def end(code: int) -> NoReturn:
    """End this process; one of several that train together without Python's own clearing up.

    There, gloo's threads still let go of tensors, and one that asks for the interpreter while it is taken down aborts
    the process (github.com/pytorch/pytorch/pull/179291), after a training that went well.
    """
    if "RANK" not in os.environ:
        sys.exit(code)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def die_with_parent() -> None:
    """End at once when the parent does, where the environment asks for it: an orphan would hold the GPU."""
    if os.environ.get(DIE_WITH_PARENT) != "1":
        return
    parent = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    """Linux signals only when the thread that started us ends, and other systems never: so look, too."""
    while os.getppid() == parent:
        time.sleep(PARENT_POLL_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)


def keep_freed_memory() -> None:
    """Let the C library keep what is freed for what is made next, where it can be told to.

    Whoever makes and drops megabytes many times a second spent a fifth of its time on pages that were given back.
    """
    _tell_allocator(KEEPING)


@contextmanager
def giving_back_memory() -> Iterator[None]:
    """Meanwhile let the C library give back every larger block as soon as it is freed, where it can be told to.

    Whoever keeps something small of much that is made and dropped, as quantising does, leaves its heap full of holes.
    """
    _tell_allocator(GIVING_BACK)
    try:
        yield
    finally:
        _tell_allocator(USUAL)


def _tell_allocator(values: dict[int, int]) -> None:
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        for name, value in values.items():
            library.mallopt(name, value)
