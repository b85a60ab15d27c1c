"""The trainer's events as text, for a person at a terminal. Everybody else gets them as JSON lines."""

import os
from functools import singledispatch
from typing import TextIO

from trainer.events import (
    Checkpoint,
    Evaluated,
    Event,
    Failed,
    Fetched,
    Finished,
    Log,
    Memory,
    Phase,
    Progress,
    RowsRead,
    Sample,
)

CLEAR_LINE = "\r\x1b[2K"
# Prompts and completions could steer the terminal; tabs and line breaks may stay.
CONTROL = {code: None for code in (*range(9), *range(11, 32), 127, *range(0x80, 0xA0))}


class TerminalView:
    """Writes events to a terminal; progress overwrites its own line, everything else stays."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._progress_shown = False

    def show(self, event: Event) -> None:
        text = as_text(event).translate(CONTROL)
        passing = isinstance(event, Progress | Fetched | RowsRead)
        clear = CLEAR_LINE if self._progress_shown else ""
        self._file.write(f"{clear}{text[: self._columns()]}" if passing else f"{clear}{text}\n")
        self._file.flush()
        self._progress_shown = passing

    def _columns(self) -> int:
        """A line that wraps could not be overwritten as a whole. A terminal without a size reports 0."""
        return max(os.get_terminal_size(self._file.fileno()).columns - 1, 40)


@singledispatch
def as_text(event: Event) -> str:
    """The event in words: one line, or several for samples and failures."""
    raise TypeError(f"no text for {event!r}")


@as_text.register
def _(event: Phase) -> str:
    return f"[{event.name}]"


@as_text.register
def _(event: Progress) -> str:
    return (
        f"step {event.step}/{event.of}  loss {event.loss:.4f}  {_duration(event.seconds_left)} left  "
        f"{event.tokens_per_second:,.0f} tok/s  {_size(event.memory_bytes)}  learning rate {event.learning_rate:.2e}"
    )


@as_text.register
def _(event: Evaluated) -> str:
    parts = [f"step {event.step}  held-out loss {event.loss:.4f}"]
    if event.perplexity is not None:
        parts.append(f"perplexity {event.perplexity:.2f}")
    parts.append(f"accuracy {event.accuracy:.1%}")
    if event.margin is not None:
        parts.append(f"reward margin {event.margin:.3f}")
    if event.general_kl is not None and event.general_perplexity is not None:
        parts.append(f"general text: KL {event.general_kl:.4f}, perplexity {event.general_perplexity:.2f}")
    return "  ".join(parts)


@as_text.register
def _(event: Sample) -> str:
    return f"step {event.step}  {event.prompt}\n{_indented(event.completion)}"


@as_text.register
def _(event: Checkpoint) -> str:
    return f"step {event.step}  checkpoint written to {event.folder}"


@as_text.register
def _(event: Memory) -> str:
    return f"step {event.step}  memory peak {_size(event.peak_bytes)}, estimated {_size(event.foretold_bytes)}"


@as_text.register
def _(event: Log) -> str:
    return event.text if event.level == "info" else f"{event.level}: {event.text}"


@as_text.register
def _(event: Fetched) -> str:
    return f"{event.what}: {_size(event.done)}{f' of {_size(event.of)}' if event.of else ''}"


@as_text.register
def _(event: RowsRead) -> str:
    return f"{event.rows:,} rows{f', {event.done / event.of:.0%}' if event.of else ''}"


@as_text.register
def _(event: Finished) -> str:
    return f"Done: {event.folder}" if event.folder else "Done."


@as_text.register
def _(event: Failed) -> str:
    return f"{event.code}:\n{_indented(event.text)}\n{_indented(event.fix)}".rstrip()


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
