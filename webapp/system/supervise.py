"""Keeps programs running as children of one process: one log, restarts with back-off, an orderly stop."""

import contextlib
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from django.conf import settings

from webapp.system.processes import Program, Stage
from webapp.system.tether import die_with
from webapp.system.valkey import ValkeyFailed

ROOT = Path(__file__).resolve().parent.parent.parent
# 15 together, with two to spare, unless a training run gets more time to hand its job back.
STOP_SECONDS = {Stage.WEB: 4.0, Stage.WORKERS: settings.HAND_BACK_SECONDS + 2.0, Stage.BROKER: 2.0}
LONGEST_PAUSE = 30.0
STEADY_SECONDS = 60.0  # a program that lived this long starts again without a pause when it ends
TICK = 0.2
COLOURS = {"web": 36, "gpu": 35, "chat": 32, "default": 34, "schedule": 33, "valkey": 31, "lowrank": 1}


class Log:
    """One line after the other, each behind the name of its program; colours only on a terminal."""

    def __init__(self, out: TextIO) -> None:
        self.out = out
        self.colours = out.isatty() and "NO_COLOR" not in os.environ

    def line(self, name: str, text: str) -> None:
        prefix = f"{name:<8}│"
        if self.colours:
            prefix = f"\x1b[{COLOURS.get(name, 0)}m{prefix}\x1b[0m"
        self.plain(f"{prefix} {text}")

    def plain(self, text: str) -> None:
        with contextlib.suppress(OSError):  # a closed terminal must not end the programs
            self.out.write(f"{text}\n")
            self.out.flush()


@dataclass
class Child:
    """A program and, while it runs, its process."""

    program: Program
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    failures: int = 0
    start_at: float | None = None  # when it starts again
    rest: bytes = field(default=b"", repr=False)  # the beginning of a line that is still to come

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None


class Supervisor:
    """Runs programs from one single-threaded loop.

    One thread matters twice: the kernel ties children to the thread that forked them, and forking beside other
    threads is unsafe.
    """

    def __init__(self, log: Log) -> None:
        self.log = log
        self.children: list[Child] = []
        self.stop_requests = 0
        self._selector = selectors.DefaultSelector()

    def obey_signals(self) -> None:
        """Ctrl-C, SIGTERM and a closed terminal ask for a stop; a second one kills."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._note_signal)
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as it is under nohup
            signal.signal(signal.SIGHUP, self._note_signal)

    def _note_signal(self, *_: object) -> None:
        self.stop_requests += 1

    def start(self, program: Program) -> Child:
        child = Child(program)
        self.children.append(child)
        self._spawn(child)
        return child

    def wait_for(self, condition: Callable[[], bool], *, seconds: float) -> bool:
        """Pass on output until the condition holds; False when the time is up or a stop was asked for."""
        end = time.monotonic() + seconds
        while not self.stop_requests and time.monotonic() < end:
            if condition():
                return True
            self._pass_on_output(0.05)
        return False

    def run(self) -> None:
        """Keep every program running until a stop is asked for."""
        while not self.stop_requests:
            self._pass_on_output(TICK)
            for child in self.children:
                self._look_after(child)

    def stop(self) -> None:
        """Stop stage by stage. What has not ended in its time, or at a second request, is killed."""
        requests_before = max(1, self.stop_requests)
        for stage in Stage:
            running = [child for child in self.children if child.program.stage == stage and child.alive]
            if not running:
                continue
            self.log.line("lowrank", f"stopping {', '.join(child.program.name for child in running)}")
            for child in running:
                _signal(child, signal.SIGTERM)
            end = time.monotonic() + STOP_SECONDS[stage]
            while any(child.alive for child in running):
                if time.monotonic() > end or self.stop_requests > requests_before:
                    break
                self._pass_on_output(0.05)
            if late := [child.program.name for child in running if child.alive]:
                self.log.line("lowrank", f"killing {', '.join(late)}")
            for child in running:
                self._sweep(child)
        self._pass_on_output(0)

    def _spawn(self, child: Child) -> None:
        program, parent = child.program, os.getpid()
        if program.before is not None:
            program.before()
        child.process = subprocess.Popen(
            program.command,
            cwd=ROOT,
            env={**os.environ, "DJANGO_SETTINGS_MODULE": "webapp.settings", "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C in the terminal reaches this process alone, which stops them in order
            preexec_fn=lambda: die_with(parent, program.killed_by),  # noqa: PLW1509 - this process has one thread
        )
        child.started, child.start_at = time.monotonic(), None
        assert child.process.stdout is not None  # noqa: S101 - PIPE above
        os.set_blocking(child.process.stdout.fileno(), False)
        self._selector.register(child.process.stdout, selectors.EVENT_READ, child)

    def _look_after(self, child: Child) -> None:
        """Notice the end of a program and start it again when its pause is over."""
        now = time.monotonic()
        if child.process is not None and child.process.poll() is not None:
            child.failures = 1 if now - child.started > STEADY_SECONDS else child.failures + 1
            pause = 0.0 if child.failures == 1 else min(2.0 ** (child.failures - 2), LONGEST_PAUSE)
            child.start_at = now + pause
            how = _how_it_ended(child.process.returncode)
            self.log.line("lowrank", f"{child.program.name} {how}; it starts again in {pause:.0f} s")
            self._sweep(child)
            child.process = None
        elif child.process is None and child.start_at is not None and now >= child.start_at:
            self.restart(child)

    def restart(self, child: Child) -> None:
        """Start a program again; when that is impossible now, try once more after the longest pause."""
        try:
            self._spawn(child)
        except (OSError, ValkeyFailed) as error:
            self.log.line("lowrank", f"{child.program.name} cannot start: {error}")
            child.start_at = time.monotonic() + LONGEST_PAUSE

    def _sweep(self, child: Child) -> None:
        """Kill what is left of a program's process group."""
        if child.process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child.process.pid, signal.SIGKILL)
            child.process.wait()

    def _pass_on_output(self, seconds: float) -> None:
        for key, _ in self._selector.select(seconds):
            child: Child = key.data
            data = os.read(key.fd, 65536)
            if not data:
                self._selector.unregister(key.fileobj)
            *lines, child.rest = (child.rest + data).split(b"\n")
            if not data and child.rest:
                lines, child.rest = [child.rest], b""
            for line in lines:
                text = line.decode(errors="replace").rstrip("\r")
                if text and (child.program.hides is None or child.program.hides not in text):
                    self.log.line(child.program.name, text)


def _signal(child: Child, number: signal.Signals) -> None:
    if child.process is not None:
        with contextlib.suppress(ProcessLookupError):
            child.process.send_signal(number)


def _how_it_ended(code: int) -> str:
    if code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return f"ended with code {code}"
