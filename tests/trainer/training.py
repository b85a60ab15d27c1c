"""Small trainings for tests: rows, specs and the events of a run on the tiny base."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn
from torch.distributed.tensor import DTensor

from trainer.events import Evaluated, Event, Progress
from trainer.sft import train
from trainer.spec import TrainSpec


def make_rows(folder: Path, count: int = 24) -> Path:
    """A file of canonical-ready chat rows of different lengths."""
    rows = []
    for number in range(count):
        question = f"What is {number} and why do cats count to {number * 7}?"
        answer = f"The answer is {number * 3}. " + "cats and dogs " * (number % 5)
        rows.append({"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]})
    path = folder / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def make_pairs(folder: Path, count: int = 24) -> Path:
    """Preference rows: polite answers are chosen, rude ones rejected."""
    rows = [
        {
            "prompt": f"What is {number}?",
            "chosen": f"Well, it is {number * 3}. " + "Thank you. " * (number % 3),
            "rejected": f"Go away with {number}. " + "No. " * (number % 4),
        }
        for number in range(count)
    ]
    return write_lines(folder / "pairs.jsonl", rows)


def make_judged(folder: Path, count: int = 24) -> Path:
    """KTO rows: every other completion is a bad one."""
    rows = [
        {
            "prompt": f"What is {number}?",
            "completion": ("Well, it is" if number % 2 else "Go away with") + f" {number}.",
        }
        | {"label": bool(number % 2)}
        for number in range(count)
    ]
    return write_lines(folder / "judged.jsonl", rows)


def write_lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def make_spec(base: Path, rows: Path, /, **parts: dict[str, Any]) -> TrainSpec:
    """A spec in float32 without quantization, which is bit-exact on a CPU; `parts` override values."""
    values: dict[str, dict[str, Any]] = {
        "model": {"base": str(base), "quantization": "none", "dtype": "float32"},
        "lora": {"r": 4, "lora_alpha": 8.0},
        "data": {"path": str(rows), "max_seq_length": 128, "holdout": 0.1},
        "optim": {"epochs": 2.0, "batch_size": 4, "learning_rate": 5e-3},
    }
    for part, changed in parts.items():
        values[part] = {**values.get(part, {}), **changed}
    return TrainSpec.from_dict(values)


@dataclass
class Training:
    """One run and what it reported. `stop_at`: ask it to stop once this step is reported."""

    spec: TrainSpec
    out: Path
    stop_at: int = 0
    events: list[Event] = field(default_factory=list)

    def run(self, resume: Path | None = None, emit: Callable[[Event], None] | None = None) -> "Training":
        def record(event: Event) -> None:
            self.events.append(event)
            if emit:
                emit(event)

        train(self.spec, out=self.out, resume=resume, emit=record, should_stop=self._should_stop)
        return self

    def _should_stop(self) -> bool:
        return bool(self.stop_at) and any(one.step >= self.stop_at for one in self.of(Progress))

    def of(self, kind: type[Any]) -> list[Any]:
        return [one for one in self.events if isinstance(one, kind)]

    @property
    def losses(self) -> list[float]:
        return [one.loss for one in self.of(Progress)]

    @property
    def accuracies(self) -> list[float | None]:
        return [one.accuracy for one in self.of(Progress)]

    @property
    def measured(self) -> list[Evaluated]:
        return self.of(Evaluated)


def local_bytes(model: nn.Module) -> int:
    """Bytes of a model's parameters in this process."""
    local = [one.to_local() if isinstance(one, DTensor) else one for one in model.parameters()]
    return sum(one.numel() * one.element_size() for one in local)
