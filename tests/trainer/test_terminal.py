"""Events as text: on a real terminal in place of JSON lines, and each of them in words."""

import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from tests.source import ROOT
from trainer.events import (
    EVENT_TYPES,
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
from trainer.terminal import CLEAR_LINE, TerminalView, as_text

STEP = Progress(
    step=3, of=1200, loss=1.8259, learning_rate=1.5e-4, grad_norm=1.0, trained_tokens=900,
    tokens_per_second=1085.4, seconds_left=4020.0, memory_bytes=1_210_000_000,
)  # fmt: skip
IN_WORDS: list[tuple[Event, str]] = [
    (Phase(name="loading"), "[loading]"),
    (STEP, "step 3/1200  loss 1.8259  1 h 7 min left  1,085 tok/s  1.21 GB  learning rate 1.50e-04"),
    (
        Evaluated(step=4, loss=1.7404, accuracy=0.8, rows=8, perplexity=5.7, general_kl=0.003, general_perplexity=34.8),
        "step 4  held-out loss 1.7404  perplexity 5.70  accuracy 80.0%  general text: KL 0.0030, perplexity 34.80",
    ),
    (Evaluated(step=4, loss=0.69, accuracy=0.5, rows=8, margin=0.1234),
     "step 4  held-out loss 0.6900  accuracy 50.0%  reward margin 0.123"),
    (Sample(step=4, prompt="What?", completion="This.\nThat."), "step 4  What?\n  This.\n  That."),
    (Checkpoint(step=4, folder="checkpoints/step-000004"), "step 4  checkpoint written to checkpoints/step-000004"),
    (Memory(step=4, peak_bytes=999_000_000, foretold_bytes=1_360_000_000, device="cpu"),
     "step 4  memory peak 999 MB, estimated 1.36 GB"),
    (Log(text="A word."), "A word."),
    (Log(text="A word.", level="warning"), "warning: A word."),
    (Fetched(done=12_000_000, of=34_000_000, what="weights"), "weights: 12 MB of 34 MB"),
    (Fetched(done=12_000_000, of=0, what="weights"), "weights: 12 MB"),
    (RowsRead(rows=1200, done=1, of=4), "1,200 rows, 25%"),
    (Finished(folder="adapter"), "Done: adapter"),
    (Finished(folder=""), "Done."),
    (Failed(code="user_config", text="One.\nTwo.", fix="Change."), "user_config:\n  One.\n  Two.\n  Change."),
]  # fmt: skip


@pytest.mark.parametrize(("event", "text"), IN_WORDS)
def test_an_event_in_words(event: Event, text: str) -> None:
    assert as_text(event) == text


def test_every_kind_has_words() -> None:
    assert {type(event) for event, _ in IN_WORDS} == set(EVENT_TYPES.values())


class Terminal:
    """A real one, of the kernel."""

    def __init__(self, columns: int) -> None:
        self._ours, self.theirs = pty.openpty()
        fcntl.ioctl(self.theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))

    def text(self) -> str:
        """All that was written, once nobody writes any more."""
        os.close(self.theirs)
        found = b""
        try:
            while piece := os.read(self._ours, 65536):
                found += piece
        except OSError:  # how Linux tells that the other end is closed
            pass
        os.close(self._ours)
        return found.decode().replace("\r\n", "\n")


def test_progress_overwrites_its_line_and_fits_into_it() -> None:
    terminal = Terminal(columns=60)
    with os.fdopen(os.dup(terminal.theirs), "w") as file:
        view = TerminalView(file)
        for event in (Log(text="Before"), STEP, STEP, Log(text="After")):
            view.show(event)
    before, *steps, after = terminal.text().split(CLEAR_LINE)
    first = before.removeprefix("Before\n")
    assert [first, *steps] == [as_text(STEP)[:59]] * 2
    assert after == "After\n"


def test_nothing_steers_the_terminal() -> None:
    terminal = Terminal(columns=80)
    with os.fdopen(os.dup(terminal.theirs), "w") as file:
        TerminalView(file).show(Sample(step=1, prompt="\x1b]0;title\x07Hi", completion="\x9b2Jbye\tnow"))
    assert terminal.text() == "step 1  ]0;titleHi\n  2Jbye\tnow\n"


def test_a_person_reads_text_and_a_program_json(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"instruction": "Say hi", "output": "hi"}\n{"instruction": "no answer"}\n')
    command = [sys.executable, "-m", "trainer", "check", str(tmp_path / "rows.jsonl"), "--out", str(tmp_path / "out")]
    terminal = Terminal(columns=80)
    seen = subprocess.run(command, cwd=ROOT, stdout=terminal.theirs, stderr=subprocess.PIPE, check=False)
    text = terminal.text()
    assert "dataset_invalid:\n  " in text
    assert "{" not in text.replace(str(tmp_path), "")
    piped = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    assert json.loads(piped.stdout.splitlines()[-1])["code"] == "dataset_invalid"
    assert (seen.returncode, seen.stderr) == (piped.returncode, piped.stderr)
