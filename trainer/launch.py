"""Starts one process a GPU for a training on several, in the environment that torchrun gives, and ends as they do."""

import os
import signal
import socket
import subprocess
import sys
import time
from types import FrameType

from trainer.errors import EXIT_CODES
from trainer.failures import MAY_TELL
from trainer.process import DIE_WITH_PARENT

GRACE_SECONDS = 30.0  # for the others, once one has failed: they wait for it in vain
LOOK_SECONDS = 0.1
HARMLESS = (EXIT_CODES["finished"], EXIT_CODES["stopped"])


def launch(count: int, arguments: list[str], *, stdout: int) -> int:
    """Run `python -m trainer` with these arguments in `count` processes. Returns the exit code for all of them.

    What one of them was killed by, this process is killed by as well.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(probe.getsockname()[1])}
    threads = max(1, (os.cpu_count() or 1) // count)
    shared = {"OMP_NUM_THREADS": str(threads)} | os.environ | meeting | {"WORLD_SIZE": str(count), DIE_WITH_PARENT: "1"}
    may_tell = _one_may_tell()
    shared |= {MAY_TELL: str(may_tell)}
    command = [sys.executable, "-m", "trainer", *arguments]
    children = [
        subprocess.Popen(
            command, stdout=stdout, env=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}, pass_fds=[may_tell]
        )
        for rank in range(count)
    ]
    _pass_on_signals(children)
    code = _wait(children)
    if code < 0:
        signal.signal(-code, signal.SIG_DFL) if -code != signal.SIGKILL else None
        os.kill(os.getpid(), -code)
    return code


def _one_may_tell() -> int:
    """A pipe with a single byte in it, see `failures.is_first`."""
    taken, given = os.pipe()
    os.write(given, b"1")
    os.close(given)
    return taken


def _pass_on_signals(children: "list[subprocess.Popen[bytes]]") -> None:
    def pass_on(number: int, frame: FrameType | None) -> None:
        for child in children:
            if child.poll() is None:
                child.send_signal(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, pass_on)


def _wait(children: "list[subprocess.Popen[bytes]]") -> int:
    """The exit code that says most: of the one that failed first, else that of a stop, else of success."""
    failed = 0
    deadline = float("inf")
    while any(child.poll() is None for child in children):
        codes = [code for child in children if (code := child.returncode) is not None and code not in HARMLESS]
        if codes and not failed:
            failed, deadline = codes[0], time.monotonic() + GRACE_SECONDS
        if time.monotonic() > deadline:
            for child in children:
                child.kill()
        time.sleep(LOOK_SECONDS)
    codes = [child.returncode for child in children]
    return failed or next((code for code in codes if code not in HARMLESS), max(codes))
