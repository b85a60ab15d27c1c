"""Ties the life of a process to that of the one that started it."""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None)  # loaded here: between fork and exec is no time to open libraries


def die_with(parent: int, number: signal.Signals) -> None:
    """Have the kernel send this process a signal when the thread that started it ends (Linux; elsewhere nothing)."""
    if sys.platform != "linux":
        return
    _libc.prctl(PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:  # it ended before the call above
        os.kill(os.getpid(), number)
