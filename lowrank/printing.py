"""What the client writes: results on standard output, progress on standard error, JSON when it was asked for."""

import json
import sys
import time
from collections.abc import Sequence
from typing import Any

UNITS = ("bytes", "kB", "MB", "GB", "TB")
CONTROL = {code: None for code in (*range(9), *range(11, 32), 127, *range(0x80, 0xA0))}  # a terminal would obey them


def plain(text: object) -> str:
    """Without the characters that steer a terminal: names and answers come from other people."""
    return str(text).translate(CONTROL)


def write(text: str = "") -> None:
    sys.stdout.write(f"{plain(text)}\n")
    sys.stdout.flush()


def write_piece(text: str) -> None:
    """A part of a line."""
    sys.stdout.write(plain(text))
    sys.stdout.flush()


def write_json(value: Any) -> None:
    """One line, so that lists of them can be read line by line."""
    sys.stdout.write(f"{json.dumps(value, ensure_ascii=False)}\n")
    sys.stdout.flush()


def say(text: str) -> None:
    """To the person, beside the result."""
    sys.stderr.write(f"{plain(text)}\n")
    sys.stderr.flush()


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Columns as wide as they need to be; only the head when there are no rows."""
    lines = [tuple(map(plain, row)) for row in (head, *rows)]
    widths = [max(len(line[at]) for line in lines) for at in range(len(head))]
    for line in lines:
        write("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


class Progress:
    """One line on standard error that is written anew; where that is no terminal, a line now and then."""

    def __init__(self, *, every: float = 10.0) -> None:
        self.live = sys.stderr.isatty()
        self._every = 0.2 if self.live else every
        self._last, self._text = 0.0, ""

    def show(self, text: str, *, at_once: bool = False) -> None:
        now = time.monotonic()
        if text == self._text or (now - self._last < self._every and not at_once):
            return
        self._last, self._text = now, text
        sys.stderr.write(f"\r\x1b[2K{plain(text)}" if self.live else f"{plain(text)}\n")
        sys.stderr.flush()

    def end(self, text: str = "") -> None:
        """Wipe the line, or leave `text` there as the last one."""
        if text:
            self.show(text, at_once=True)
        if self.live and self._text:
            sys.stderr.write("\n" if text else "\r\x1b[2K")
            sys.stderr.flush()
        self._text = ""


def size_text(size: float) -> str:
    for unit in UNITS:
        if size < 1000 or unit == UNITS[-1]:
            return f"{size:.0f} {unit}" if unit == "bytes" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1000
    return ""


def moment_text(seconds: int | None) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds)) if seconds else "–"
