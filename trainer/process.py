"""The trainer as a process: events on the real stdout, graceful stop on signals, and an end when its parent dies."""

import ctypes
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn, TextIO

from trainer.events import Event, encode
from trainer.terminal import TerminalView

DIE_WITH_PARENT = "LOWRANK_DIE_WITH_PARENT"
STORE_FD = "LOWRANK_STORE_FD"  # on which the first of several training processes listens for the others
PARENT_POLL_SECONDS = 1.0
PR_SET_PDEATHSIG = 1
STOPPING = (signal.SIGTERM, signal.SIGINT)  # request a graceful stop
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3  # mallopt parameters, from malloc.h
KEEPING = {M_TRIM_THRESHOLD: 1 << 28, M_TOP_PAD: 1 << 24, M_MMAP_THRESHOLD: 1 << 28}
GIVING_BACK = {M_MMAP_THRESHOLD: 1 << 20}
# Where glibc's dynamic thresholds arrive once blocks of 32 MB were freed. Setting any parameter turns them off.
USUAL = {M_TRIM_THRESHOLD: 1 << 26, M_MMAP_THRESHOLD: 1 << 25}


class EventStream:
    """Writes numbered events to the original stdout, as text if that is a terminal, else as JSON lines.

    stdout becomes stderr, so no library can write between them.
    """

    def __init__(self) -> None:
        sys.stdout.flush()
        self._file: TextIO = os.fdopen(os.dup(1), "w", encoding="utf-8", newline="\n")
        os.dup2(2, 1)
        self._view = TerminalView(self._file) if self._file.isatty() else None
        self._number = 0

    def fileno(self) -> int:
        """The original stdout, for a process that writes its own events there."""
        return self._file.fileno()

    def emit(self, event: Event) -> None:
        if self._view:
            self._view.show(event)
            return
        self._number += 1
        self._file.write(encode(self._number, event) + "\n")
        self._file.flush()


class StopRequest:
    """Whether this process was asked to stop by a signal. Repeated signals change nothing.

    A signal that arrived earlier, while `launch` had them blocked for this process, counts as well.
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
    """Exit; if several processes train together, without finalising the interpreter.

    Then gloo's threads may still release tensors, and one that needs the interpreter during finalisation aborts the
    process (github.com/pytorch/pytorch/pull/179291), after a successful run.
    """
    if "RANK" not in os.environ:
        sys.exit(code)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def die_with_parent() -> None:
    """Die at once with the parent, if the environment asks for it: an orphan would keep the GPU occupied."""
    if os.environ.get(DIE_WITH_PARENT) != "1":
        return
    parent = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    """Linux signals only the end of the thread that started us, and other systems nothing: so poll as well."""
    while os.getppid() == parent:
        time.sleep(PARENT_POLL_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)


class _Peak:
    before_restart = 0


def peak_memory() -> int:
    """The most memory this process ever held, in bytes."""
    return max(_Peak.before_restart, recent_peak_memory())


def recent_peak_memory() -> int:
    """The most memory this process held since `restart_peak`, in bytes; the most ever where the system cannot tell."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def restart_peak() -> None:
    """Let the system measure the peak anew from here on."""
    _Peak.before_restart = peak_memory()
    with suppress(OSError):  # Linux alone has it (proc_pid_clear_refs(5)), and not in every container
        Path("/proc/self/clear_refs").write_text("5")


def keep_freed_memory() -> None:
    """Make malloc keep freed memory for reuse, where the C library has mallopt.

    Code that allocates and frees megabytes many times a second spent a fifth of its time on returned pages.
    """
    _tell_allocator(KEEPING)


@contextmanager
def giving_back_memory() -> Iterator[None]:
    """Make malloc return larger blocks to the system as soon as they are freed, where the C library has mallopt.

    Code that keeps little of much that it allocates, as quantising does, would leave a fragmented heap.
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
