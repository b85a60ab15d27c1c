"""What checkpoints cost a training: their share of its time, written as often as the trainer does by itself.

    make bench ARGS=checkpoints         DATA=rows.json STEPS=60 BASE=folder from the environment

Beside them the bare writing of the same tensors (safetensors, no verification, no manifest) in the same run.
"""

import json
import os
import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks.training import prepare as prepare_work
from trainer.checkpoint import SAVING_SHARE, Checkpoints, Position
from trainer.events import Checkpoint, Event, Progress
from trainer.optimizer import MasterAdamW
from trainer.sft import train
from trainer.spec import TrainSpec


def main() -> None:
    os.environ.setdefault("STEPS", "60")
    with tempfile.TemporaryDirectory() as folder:
        work = json.loads(prepare_work(Path(folder)).read_text())
        measure(TrainSpec.from_dict(work["spec"]), Path(folder) / "out")


def measure(spec: TrainSpec, out: Path) -> None:
    """Train once and print what the checkpoints took. The clock is the wall's; nothing is left out of the whole."""
    seconds: list[float] = []
    genuine = Checkpoints.save

    def timed(self: Checkpoints, position: Position, optimizer: MasterAdamW, best: Mapping[str, Tensor]) -> None:
        began = time.monotonic()
        genuine(self, position, optimizer, best)
        seconds.append(time.monotonic() - began)

    steps: list[int] = []
    newest = out

    def emit(event: Event) -> None:
        nonlocal newest
        if isinstance(event, Progress):
            steps.append(event.step)
        if isinstance(event, Checkpoint):
            newest = out / event.folder

    Checkpoints.save = timed  # type: ignore[method-assign]
    began = time.monotonic()
    train(spec, out=out, resume=None, emit=emit, should_stop=lambda: False)
    whole = time.monotonic() - began
    size = sum(file.stat().st_size for file in newest.iterdir())
    bare = _bare_seconds(newest, out / "bare.safetensors")
    print(f"  {len(steps)} steps in {whole:.1f} s; {len(seconds)} checkpoints of {size / 1e6:.1f} MB")
    print(f"  one takes {statistics.median(seconds):.2f} s (bare writing of its tensors: {bare:.2f} s)")
    print(f"  checkpoints take {sum(seconds) / whole:.2%} of the time; at most {SAVING_SHARE:.0%} are allowed")


def _bare_seconds(checkpoint: Path, target: Path) -> float:
    tensors = {
        f"{file.stem}.{name}": one for file in checkpoint.glob("*.safetensors") for name, one in load_file(file).items()
    }
    began = time.monotonic()
    save_file(tensors, target)
    return time.monotonic() - began


if __name__ == "__main__":
    main()
