"""A trainer that follows a script: a small Python program that prints given events and ends as told."""

import json
import sys
from dataclasses import asdict
from pathlib import Path

from tests.make import ADAPTER_FILES
from trainer import events

HEAD = """
import json, os, signal, sys, time
out = sys.argv[sys.argv.index("--out") + 1]
number = 0
def say(line):
    global number
    number += 1
    print(json.dumps({"n": number, **line}), flush=True)
def folder(name, files):
    os.makedirs(os.path.join(out, name), exist_ok=True)
    for file, text in files.items():
        open(os.path.join(out, name, file), "w").write(text)
"""


class ScriptedTrainer:
    """`ScriptedTrainer(tmp_path).says(Phase(name="loading")).sleeps(1).publishes().command`."""

    def __init__(self, folder: Path, name: str = "trainer") -> None:
        self.path = folder / f"{name}.py"
        self._lines = [HEAD]
        self._write("pass")

    @property
    def command(self) -> tuple[str, str]:
        return sys.executable, str(self.path)

    def says(self, *told: events.Event) -> "ScriptedTrainer":
        for event in told:
            self._write(f"say(json.loads({json.dumps({'kind': event.kind} | asdict(event))!r}))")
        return self

    def prints(self, text: str) -> "ScriptedTrainer":
        """On stdout, as a library might."""
        return self._write(f"print({text!r}, flush=True)")

    def logs(self, text: str) -> "ScriptedTrainer":
        return self._write(f"print({text!r}, file=sys.stderr, flush=True)")

    def sleeps(self, seconds: float) -> "ScriptedTrainer":
        return self._write(f"time.sleep({seconds})")

    def runs(self, code: str) -> "ScriptedTrainer":
        return self._write(code)

    def checkpoints(self, step: int) -> "ScriptedTrainer":
        name = f"checkpoints/step-{step:06d}"
        self._write(f"folder({name!r}, {{'manifest.json': '{{}}'}})")
        return self.says(events.Checkpoint(step=step, folder=name))

    def stops_when_asked(self) -> "ScriptedTrainer":
        """On SIGTERM: exit with 75, as after a checkpoint."""
        return self._write("signal.signal(signal.SIGTERM, lambda *_: os._exit(75))")

    def ignores_being_asked(self) -> "ScriptedTrainer":
        return self._write("signal.signal(signal.SIGTERM, signal.SIG_IGN)")

    def publishes(self, **facts: object) -> "ScriptedTrainer":
        self._write(f"folder('adapter', {ADAPTER_FILES!r})")
        return self.says(events.Finished(folder="adapter", facts=facts)).exits(0)

    def exits(self, status: int) -> "ScriptedTrainer":
        return self._write(f"sys.exit({status})")

    def is_killed(self) -> "ScriptedTrainer":
        return self._write("os.kill(os.getpid(), signal.SIGKILL)")

    def _write(self, line: str) -> "ScriptedTrainer":
        self._lines.append(line)
        self.path.write_text("\n".join(self._lines))
        return self


def progress(step: int, of: int = 10, loss: float = 2.0) -> events.Progress:
    return events.Progress(
        step=step,
        of=of,
        loss=loss,
        learning_rate=2e-4,
        grad_norm=1.0,
        trained_tokens=100 * step,
        tokens_per_second=250.0,
        seconds_left=float(of - step),
        memory_bytes=1 << 30,
    )
