"""Runs `python -m trainer` on what strangers sent, such as `check`: a child with limits that ends with its parent."""

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from trainer.events import Event, Failed, decode
from webapp.common.child_environment import child_environment

ROOT = Path(__file__).resolve().parent.parent.parent
MEMORY_BYTES = 2 * 1024**3  # address space
LEAST_SECONDS = 60
FETCH_SECONDS = 3 * 3600
LAYERS_SECONDS = 300  # loading torch on a busy machine
TOKENS_SECONDS = 600  # a sample of the rows, however many there are
BYTES_PER_SECOND = 2_000_000  # a tenth of what was measured on two busy cores
PACKED = 10  # bytes of text in a byte of rows.parquet, at most in what was seen
LOOK_SECONDS = 0.1
STDERR_TAIL = 4000
EVENTS = "events.jsonl"  # in the folder of its work
LAST_LINE = 20_000  # characters of events, at most
FROM_OUTSIDE = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
COUNTS = Path("/proc/vmstat")  # the kernel's
# Nothing else of our environment reaches the child: it has no need of keys, and reads what a stranger wrote.
PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH")


@dataclass(frozen=True)
class Ending:
    """How the child ended: exit status (negative: the signal), what it said last, and whether it ran out of time.

    for_memory: whether the kernel killed a process for want of memory meanwhile.
    """

    status: int
    failed: Failed | None
    stderr: str
    out_of_time: bool = False
    for_memory: bool = False

    @property
    def was_killed(self) -> bool:
        """Whether somebody else ended it, which says nothing about what it read."""
        return -self.status in FROM_OUTSIDE and not self.out_of_time

    @property
    def cause(self) -> str:
        """Why it ended, where it said nothing itself; goes on after its name."""
        if not self.was_killed:
            return f"ended unexpectedly (status {self.status})"
        if self.for_memory:
            return "was killed because the machine ran out of memory"
        return f"was killed from outside ({signal.Signals(-self.status).name})"


def run_check(
    original: Path, out: Path, *, skip_bad_rows: bool, still_ours: Callable[[], bool], told: Sequence[str] = ()
) -> Ending | None:
    """Inspect `original` into the folder `out`. None when `still_ours`, asked all the time, said no.

    `told`: further arguments, of what is known about the file.
    """
    told = [*told, "--skip-bad-rows"] if skip_bad_rows else told
    seconds = _seconds_for(original.stat().st_size)
    return _run(["check", str(original), "--out", str(out), *told], out, seconds=seconds, still_ours=still_ours)


def run_revise(
    rows: Path,
    changes: Path,
    out: Path,
    *,
    test_file: Path | None,
    skip_bad_rows: bool,
    still_ours: Callable[[], bool],
) -> Ending | None:
    """Make the rows that `changes` ask for into the folder `out`. None when `still_ours` said no."""
    command = ["revise", str(rows), f"--changes={changes}", "--out", str(out)]
    command += [f"--test-file={test_file}"] if test_file else []
    command += ["--skip-bad-rows"] if skip_bad_rows else []
    size = rows.stat().st_size * PACKED + changes.stat().st_size + (test_file.stat().st_size if test_file else 0)
    return _run(command, out, seconds=_seconds_for(size), still_ours=still_ours)


def run_survey(rows: Path, out: Path, *, still_ours: Callable[[], bool]) -> Ending | None:
    """Survey `rows` into the folder `out`. None when `still_ours` said no."""
    seconds = _seconds_for(rows.stat().st_size * PACKED)
    return _run(["survey", str(rows), "--out", str(out)], out, seconds=seconds, still_ours=still_ours)


def run_compare(older: Path, newer: Path, out: Path, *, still_ours: Callable[[], bool]) -> Ending | None:
    """Tell what changed from `older` to `newer` rows into the folder `out`. None when `still_ours` said no."""
    seconds = _seconds_for((older.stat().st_size + newer.stat().st_size) * PACKED)
    return _run(["compare", str(older), str(newer), "--out", str(out)], out, seconds=seconds, still_ours=still_ours)


def run_tokens(rows: Path, base: Path, out: Path, *, still_ours: Callable[[], bool]) -> Ending | None:
    """Count the tokens of `rows` for a base model into the folder `out`. None when `still_ours` said no."""
    command = ["tokens", str(rows), "--base", str(base), "--out", str(out)]
    return _run(command, out, seconds=TOKENS_SECONDS, still_ours=still_ours)


def run_fetch(arguments: Sequence[str], out: Path, *, still_ours: Callable[[], bool]) -> Ending | None:
    """Fetch a dataset's files from the hub; `out` is for what the child says. None when `still_ours` said no."""
    own = child_environment(with_hub_token=True) | {"PYTHONUNBUFFERED": "1"}
    return _run(["fetch", "data", *arguments], out, seconds=FETCH_SECONDS, still_ours=still_ours, environment=own)


def run_adapter_step(arguments: Sequence[str], out: Path, *, size: int) -> Ending | None:
    """A step of taking in an adapter of `size` bytes; what it tells lies in the folder `out`."""
    command = ["adapter", *arguments, "--out", str(out)]
    return _run(command, out, seconds=_seconds_for(size), still_ours=lambda: True)


def run_layers(base: Path, out: Path) -> Ending | None:
    """Tell a base model's layers into the folder `out`. It is ours, and torch needs room: no limits."""
    command = ["adapter", "layers", "--base", str(base), "--out", str(out)]
    own = child_environment(with_hub_token=False) | {"PYTHONUNBUFFERED": "1"}
    return _run(command, out, seconds=LAYERS_SECONDS, still_ours=lambda: True, environment=own)


def _seconds_for(size: int) -> int:
    return LEAST_SECONDS + size // BYTES_PER_SECOND


def _run(
    command: Sequence[str],
    out: Path,
    *,
    seconds: int,
    still_ours: Callable[[], bool],
    environment: dict[str, str] | None = None,
) -> Ending | None:
    """Memory is limited for who reads what a stranger wrote, which has no environment of its own."""
    events, stderr, kills = out / EVENTS, out / "stderr.txt", _kills_for_memory()
    with events.open("wb") as said, stderr.open("wb") as complained:
        child = subprocess.Popen(
            [sys.executable, "-m", "trainer", *command],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=complained,
            cwd=ROOT,
            env=environment or _environment(),
            start_new_session=True,
        )
    try:
        if environment is None:
            _limit(child.pid, seconds)
        out_of_time = _watch(child, deadline=time.monotonic() + 2 * seconds, still_ours=still_ours)
    finally:
        _kill(child)
    if out_of_time is None:
        return None
    out_of_time = out_of_time or child.returncode == -signal.SIGXCPU
    for_memory = child.returncode == -signal.SIGKILL and _kills_for_memory() > kills
    return Ending(child.returncode, _last_words(out), _tail(stderr), out_of_time, for_memory)


def _kills_for_memory() -> int:
    """How many processes the kernel has killed for want of memory since it started; 0 where it does not say."""
    try:
        return int(dict(line.split() for line in COUNTS.read_text().splitlines()).get("oom_kill", 0))
    except (OSError, ValueError):
        return 0


def _environment() -> dict[str, str]:
    passed_on = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    # Arrow's own allocator reserves more address space than the limit leaves it.
    return passed_on | {"LOWRANK_DIE_WITH_PARENT": "1", "PYTHONUNBUFFERED": "1", "ARROW_DEFAULT_MEMORY_POOL": "system"}


def _limit(pid: int, seconds: int) -> None:
    if sys.platform != "linux":  # elsewhere only the time is limited
        return
    try:
        resource.prlimit(pid, resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        resource.prlimit(pid, resource.RLIMIT_CPU, (seconds, seconds + 5))
        resource.prlimit(pid, resource.RLIMIT_CORE, (0, 0))
    except ProcessLookupError:
        return  # it has ended already


def _watch(child: "subprocess.Popen[bytes]", *, deadline: float, still_ours: Callable[[], bool]) -> bool | None:
    """Wait for the end. True: out of time; None: the inspection is no longer ours."""
    while True:
        try:
            child.wait(LOOK_SECONDS)
            return False
        except subprocess.TimeoutExpired:
            if time.monotonic() > deadline:
                return True
            if not still_ours():
                return None


def _kill(child: "subprocess.Popen[bytes]") -> None:
    if child.poll() is None:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def last_event(out: Path) -> Event | None:
    """What a child that works into the folder `out` said last; None before it said anything."""
    try:
        _, event = decode(_tail(out / EVENTS, LAST_LINE).splitlines()[-1])
    except (FileNotFoundError, IndexError, ValueError):  # ValueError: the line is being written
        return None
    return event


def _last_words(out: Path) -> Failed | None:
    event = last_event(out)
    return event if isinstance(event, Failed) else None


def _tail(file: Path, size: int = STDERR_TAIL) -> str:
    with file.open("rb") as reader:
        reader.seek(max(0, file.stat().st_size - size))
        return reader.read().decode(errors="replace")
