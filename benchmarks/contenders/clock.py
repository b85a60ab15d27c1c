"""How a contender is run and timed: speed of the real tokens, peak memory, share of what the machine can do."""

import json
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

WARM_UP = 2  # steps


def run(contender: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Train on the work of the file named on the command line; the result is the last line on stdout."""
    print(json.dumps(contender(json.loads(Path(sys.argv[1]).read_text()))))


class Clock:
    """When each step ended. Speed is that of the real tokens after the warm-up."""

    def __init__(self) -> None:
        self.ends: list[float] = []
        self.losses: list[float] = []

    def step(self, loss: float | None = None) -> None:
        self.ends.append(time.perf_counter())
        if loss is not None:
            self.losses.append(loss)

    def result(self, tokens: list[int], model: Any) -> dict[str, Any]:
        speed = sum(tokens[WARM_UP:]) / (self.ends[-1] - self.ends[WARM_UP - 1])
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        loss = statistics.fmean(self.losses[-4:])
        return {"speed": speed, "peak": peak, "loss": loss, "losses": self.losses, "share": _share(speed, model)}


def _share(speed: float, model: Any) -> float:
    """Of the matrix products this machine can do in the same minute: 4 N for the frozen weights, 6 N for LoRA's."""
    trained = sum(weight.numel() for name, weight in model.named_parameters() if "lora_" in name)
    config = model.config
    width, middle = config.hidden_size, config.intermediate_size
    keys = config.num_key_value_heads * width // config.num_attention_heads
    frozen = config.num_hidden_layers * (2 * width * width + 2 * width * keys + 3 * width * middle)
    frozen += config.vocab_size * width
    a, b = torch.randn(2048, 2048).bfloat16(), torch.randn(2048, 2048).bfloat16()
    a @ b
    began = time.perf_counter()
    for _ in range(10):
        a @ b
    peak = 10 * 2 * 2048**3 / (time.perf_counter() - began)
    return speed * (4 * frozen + 6 * trained) / peak


def row_tokens(work: dict[str, Any]) -> list[int]:
    """Real tokens of each step."""
    rows_a_step = work["rows_a_step"]
    lengths = [len(row["input_ids"]) - 1 for row in work["rows"]]
    return [sum(lengths[at : at + rows_a_step]) for at in range(0, len(lengths), rows_a_step)]
