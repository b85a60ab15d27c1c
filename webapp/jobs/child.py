"""The trainer as a child process: its start in its own process group, what it says, and its end."""

import contextlib
import logging
import os
import signal
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from trainer import events
from webapp.common.child_environment import child_environment

logger = logging.getLogger(__name__)

LINE_LENGTH = 2_000  # a longer line of the log is cut
LOG_LINES = 5_000  # of one attempt, kept as events; the file goes on
LOG_LINES_A_BATCH = 200
LOG_FILE_BYTES = 16 << 20
EVENT_BYTES = 4 << 20  # no event comes near this; a line without end must not fill the memory


class Child:
    """One running trainer. `take()` hands out what it reported since the last time; `log.txt` holds all its lines."""

    def __init__(self, command: Sequence[str], folder: Path) -> None:
        # Its own process group, so that a signal reaches what it started too and Ctrl-C in a terminal does not.
        self._process = subprocess.Popen(
            command,
            env=child_environment(with_hub_token=False),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        # Without a buffer: what a full disk refused must not be refused once more by close().
        self._log = (folder / "log.txt").open("ab", buffering=0)
        self._log_is_full = False
        self._lock = threading.Lock()
        self._taken: list[events.Event] = []
        self._log_lines = 0
        self._left_out = 0
        self.events_read = 0  # moves while the trainer reports anything itself
        pipes = ((self._read_events, self._process.stdout), (self._read_log, self._process.stderr))
        self._readers = [threading.Thread(target=read, args=(pipe,), daemon=True) for read, pipe in pipes]
        for reader in self._readers:
            reader.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def exit_status(self) -> int | None:
        """None while it lives; negative: the signal that ended it."""
        return self._process.poll()

    def take(self) -> list[events.Event]:
        """What came since the last time, in order; of many log lines only the newest, and how many were left out."""
        with self._lock:
            taken, self._taken = self._taken, []
            left_out, self._left_out = self._left_out, 0
        if left_out:
            taken.append(events.Log(text=f"{left_out} lines left out; the whole log is in the file.", level="warning"))
        return taken

    def ask_to_stop(self) -> None:
        """SIGTERM: checkpoint at the next step boundary, then go."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL to the whole group, and wait until it has gone."""
        self._signal(signal.SIGKILL)
        self._process.wait()

    def close(self) -> None:
        """Leave nothing behind: processes that outlived the trainer, threads, files."""
        self.kill()
        for reader in self._readers:
            reader.join(timeout=5)
        self._log.close()

    def drain(self) -> None:
        """After its end: wait until everything it said is read."""
        for reader in self._readers:
            reader.join(timeout=10)

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def _read_events(self, pipe: IO[bytes]) -> None:
        with pipe:
            while line := pipe.readline(EVENT_BYTES):
                text = line.decode(errors="replace").strip()
                if not text:
                    continue
                try:
                    _, event = events.decode(text)
                except ValueError:
                    self._keep_line(text)
                    continue
                self.events_read += 1
                if isinstance(event, events.Log):
                    self._keep_line(event.text, event.level)
                else:
                    self._keep(event)

    def _read_log(self, pipe: IO[bytes]) -> None:
        with pipe:
            while line := pipe.readline(4 * LINE_LENGTH):
                self._keep_line(line.decode(errors="replace"))

    def _keep(self, event: events.Event) -> None:
        with self._lock:
            self._taken.append(event)

    def _keep_line(self, text: str, level: str = "info") -> None:
        # Progress bars draw over themselves: what stands last is what a person would see.
        text = text.rstrip().rsplit("\r", 1)[-1]
        if not text:
            return
        text = text if len(text) <= LINE_LENGTH else text[: LINE_LENGTH - 1] + "…"
        with self._lock:
            self._write(text.encode(errors="replace") + b"\n")
            waiting = sum(isinstance(event, events.Log) for event in self._taken)
            if self._log_lines >= LOG_LINES or waiting >= LOG_LINES_A_BATCH:
                self._left_out += 1
                return
            self._log_lines += 1
            self._taken.append(events.Log(text=text, level=level))  # type: ignore[arg-type]  # of the same words

    def _write(self, line: bytes) -> None:
        """To the file, as long as it takes any. A full disk ends the file, not the reading."""
        if self._log.closed or self._log_is_full:
            return
        try:
            self._log.write(line)
            self._log_is_full = self._log.tell() >= LOG_FILE_BYTES
        except OSError as error:
            self._log_is_full = True
            logger.warning("the log of process %s ends here: %s", self.pid, error)
