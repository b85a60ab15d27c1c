"""What is trained to measure memory: a base, a spec, rows, and how much memory the trainer is told there is."""

import itertools
import json
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.memory.bases import DEMO, SHAPES
from trainer.spec import TrainSpec

STEPS = 2  # the second is the first one with the optimizer's state
MANY = 60  # steps after which a run has met rows of most lengths it will meet
WORDS = ["The", "cat", "sat", "on", "the", "mat", "and", "counted", "to", "seven."]  # 11 of the demo model's tokens


@dataclass(frozen=True)
class Case:
    """`rows` of `length` tokens go through at once, in `passes` a step. `memory`: of the machine, in GB, if not all.

    Two steps of rows of one length, unless it has `steps`, and is `mixed` (rows from an eighth of the length up to it).
    """

    base: str
    length: int = 512
    rows: int = 2
    passes: int = 1
    quantization: str = "nf4"
    dtype: str = "auto"
    method: str = "sft"
    mixed: bool = False
    steps: int = STEPS
    memory: float = 0.0
    lora: dict[str, Any] = field(default_factory=dict)
    optim: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        parts = [self.base, self.quantization, f"{self.rows}x{self.length}"]
        parts += [f"{self.passes} passes"] * (self.passes > 1) + [self.method] * (self.method != "sft")
        parts += [self.dtype] * (self.dtype != "auto") + ["mixed"] * self.mixed
        parts += [f"{self.steps} steps"] * (self.steps != STEPS)
        parts += [f"{self.memory:g} GB machine"] * bool(self.memory)
        return ", ".join([*parts, *(f"{name} {_told(value)}" for name, value in {**self.lora, **self.optim}.items())])

    @property
    def held_out(self) -> bool:
        return SHAPES[self.base].held_out

    @property
    def values(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def tokens(self) -> int:
        return self.rows * self.length

    def spec(self, base: Path, work: Path) -> TrainSpec:
        sequences = 2 if self.method == "dpo" else 1  # each pair is two of the rows of a pass
        return TrainSpec.from_dict(
            {
                "model": {"base": str(base), "quantization": self.quantization, "dtype": self.dtype},
                "lora": {"r": 16, **self.lora},
                "data": {
                    "path": str(self._rows_file(work)),
                    "max_seq_length": self.length,
                    "holdout": 0.0,
                    "method": self.method,
                    "train_on": "everything" if self.method == "sft" else "answers",
                },
                "optim": {
                    "batch_size": self.rows * self.passes // sequences,
                    "max_steps": self.steps,
                    "epochs": 100,
                    "micro_batch_tokens": self.tokens,
                    **self.optim,
                },
            }
        )

    @property
    def dataset_rows(self) -> int:
        return max(16, self.steps * self.rows * self.passes)

    def _rows_file(self, work: Path) -> Path:
        """Rows longer than the spec reads, so that all are cut to one length, unless they are to be mixed."""
        file = work / f"rows-{self.method}-{self.length}-{self.dataset_rows}-{self.mixed}.jsonl"
        lines = [json.dumps(self._row(number)) for number in range(self.dataset_rows)]
        file.write_text("\n".join(lines))
        return file

    def _row(self, number: int) -> dict[str, Any]:
        share = random.Random(number).uniform(1 / 8, 1) if self.mixed else 1.5
        words = max(1, round(share * self.length * len(WORDS) / 11))
        text = " ".join(itertools.islice(itertools.cycle(WORDS), words))
        if self.method == "dpo":
            return {"prompt": f"{number}?", "chosen": text, "rejected": f"No. {text}"}
        if self.method == "kto":
            return {"prompt": f"{number}?", "completion": text, "label": bool(number % 2)}
        return {"text": f"{number} {text}"}


def _told(value: Any) -> str:
    return "+".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def cases() -> Iterator[Case]:
    """Every base alike, then what memory depends on, one thing at a time, on few of them."""
    for base in SHAPES:
        yield Case(base)
        yield Case(base, quantization="none", length=256, rows=3, passes=2)
        yield Case(base, rows=4, optim={"gradient_checkpointing": True})
    yield Case(DEMO, quantization="int8")
    yield Case(DEMO, quantization="none", dtype="float32")
    yield Case(DEMO, quantization="none", length=1536, rows=1)
    yield Case(DEMO, length=128, rows=8, passes=4)
    yield Case(DEMO, rows=4, memory=2.6)
    yield Case(DEMO, mixed=True, passes=4)
    yield Case(DEMO, length=384, mixed=True, steps=MANY)
    yield Case(DEMO, quantization="none", length=384, mixed=True, steps=MANY)
    yield Case(DEMO, length=96, mixed=True, steps=2 * MANY)
    yield Case(DEMO, method="dpo")
    yield Case(DEMO, method="kto")
    yield Case(DEMO, lora={"r": 128})
    yield Case(DEMO, lora={"r": 128}, optim={"optimizer": "adamw_8bit"})
    yield Case(DEMO, lora={"r": 8, "target_modules": "attention"})
    yield Case(DEMO, lora={"lora_dropout": 0.1})
    yield Case(DEMO, lora={"init_lora_weights": "loftq", "layers_to_transform": [0]})
    yield Case("llama-wide", lora={"modules_to_save": ["lm_head"]})
    yield Case("llama-wide", lora={"use_dora": True}, quantization="none")
    yield Case("llama-wide", lora={"target_modules": "mlp"}, length=1024, rows=1)
    yield Case("llama-500m", memory=2.4)
    yield Case("llama-500m", quantization="int8", memory=2.6, length=256)
    yield Case("mistral", length=1024, rows=1, lora={"r": 64})
    yield Case("mistral", memory=2.0)
    yield Case("qwen3", quantization="none", length=1536, rows=1)
    yield Case("llama-wide", length=384, mixed=True, steps=MANY)
    yield Case("granite", length=384, mixed=True, steps=MANY)
