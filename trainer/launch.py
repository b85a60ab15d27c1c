"""Launches one training process per GPU with torchrun's environment variables, and exits as they do."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from types import FrameType

from trainer.errors import EXIT_CODES, TrainerError
from trainer.failures import MAY_REPORT
from trainer.process import DIE_WITH_PARENT, STOPPING, STORE_FD

GRACE_SECONDS = 30.0  # for the others, once one has failed: they would wait for it forever
LONG_GRACE_SECONDS = 600.0  # once one has ended normally: another may still be writing a checkpoint
POLL_SECONDS = 0.1
LOOPBACKS = ("lo", "lo0")  # on Linux, on a Mac
CLEAN_EXITS = (EXIT_CODES["finished"], EXIT_CODES["stopped"])


def launch(count: int, arguments: list[str], *, stdout: int, should_stop: Callable[[], bool]) -> int:
    """Run `python -m trainer` with these arguments in `count` processes. Returns their common exit code.

    If one was killed by a signal, this process dies by the same one. `should_stop`: whether a stop was requested before
    signals are forwarded. Raises TrainerError(internal) if all stopped without having been asked to.
    """
    children: list[subprocess.Popen[bytes]] = []
    received = _forward_signals(children)
    if should_stop() or received:
        return EXIT_CODES["stopped"]
    _start(children, count, arguments, stdout=stdout)
    if received:  # one that came in between may have reached only some of them
        _signal(children, received[-1])
    code = _wait(children)
    if code == EXIT_CODES["stopped"] and not received:
        raise TrainerError(
            "internal",
            "The training processes lost contact with each other, and none of them reported a failure.",
            "The log has the error of each of them. Resume from the last checkpoint, or train on one GPU.",
        )
    if code < 0:
        signal.signal(-code, signal.SIG_DFL) if -code != signal.SIGKILL else None
        os.kill(os.getpid(), -code)
    return code


def _start(children: "list[subprocess.Popen[bytes]]", count: int, arguments: list[str], *, stdout: int) -> None:
    """Start the processes, with signals blocked until `StopRequest` handles them: an earlier one would kill them.

    The first one inherits the socket that the others come to. torch's own would listen on all interfaces, and whoever
    writes into its store can send the processes to a place of his own.
    """
    store = socket.create_server(("127.0.0.1", 0))
    rendezvous = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.getsockname()[1])}
    rendezvous |= {STORE_FD: str(store.fileno())}
    threads = max(1, (os.cpu_count() or 1) // count)
    token = _report_token()
    shared = {"OMP_NUM_THREADS": str(threads)} | _on_this_machine() | os.environ | rendezvous
    shared |= {"WORLD_SIZE": str(count), DIE_WITH_PARENT: "1", MAY_REPORT: str(token)}
    command = [sys.executable, "-m", "trainer", *arguments]
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    for rank in range(count):
        own = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        files = [token] if rank else [token, store.fileno()]
        children.append(subprocess.Popen(command, stdout=stdout, env=shared | own, pass_fds=files))
    store.close()
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _on_this_machine() -> dict[str, str]:
    """Keep communication on the loopback interface: the processes exchange pickles, which others must not send."""
    there = {name for _, name in socket.if_nameindex()}
    loopback = next((name for name in LOOPBACKS if name in there), "")
    return {f"{library}_SOCKET_IFNAME": loopback for library in ("GLOO", "NCCL")} if loopback else {}


def _report_token() -> int:
    """The read end of a pipe with a single byte in it, see `failures.may_report`."""
    read_end, write_end = os.pipe()
    os.write(write_end, b"1")
    os.close(write_end)
    return read_end


def _forward_signals(children: "list[subprocess.Popen[bytes]]") -> list[int]:
    """Forward signals to the children from now on. Returns a list to which each received one is added."""
    received: list[int] = []

    def forward(number: int, frame: FrameType | None) -> None:
        received.append(number)
        _signal(children, number)

    for number in STOPPING:
        signal.signal(number, forward)
    return received


def _signal(children: "list[subprocess.Popen[bytes]]", number: int) -> None:
    for child in children:
        if child.poll() is None:
            child.send_signal(number)


def _wait(children: "list[subprocess.Popen[bytes]]") -> int:
    """The exit code of the process that failed first, else of the first one in the list that ended."""
    failed, deadline = 0, float("inf")
    while running := [child for child in children if child.poll() is None]:
        now, codes = time.monotonic(), [child.returncode for child in children if child.returncode is not None]
        if codes:  # the others may be stuck in a collective that nobody else joins
            deadline = min(deadline, now + LONG_GRACE_SECONDS)
        if not failed and (failed := _first_failure(codes)):
            deadline = min(deadline, now + GRACE_SECONDS)
        if now > deadline:
            _end_all(running)
            break
        time.sleep(POLL_SECONDS)
    ended = [child.returncode for child in children if child not in running]
    return failed or _first_failure(ended) or ended[0]


def _first_failure(codes: list[int]) -> int:
    return next((code for code in codes if code not in CLEAN_EXITS), 0)


def _end_all(children: "list[subprocess.Popen[bytes]]") -> None:
    for child in children:
        child.kill()
    for child in children:
        child.wait()
