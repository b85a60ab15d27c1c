"""How a contender is run and timed: speed of the real tokens, peak memory, share of what the machine can do, loss."""

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.contenders.place import PLACE, peak_memory, wait_for_device
from benchmarks.contenders.useful_work import share_of_peak

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
        wait_for_device()
        self.ends.append(time.perf_counter())
        if loss is not None:
            self.losses.append(loss)

    def result(self, work: dict[str, Any], model: Any, tokens: list[int]) -> dict[str, Any]:
        """`tokens`: real ones of each step. `loss`: of the last steps; `after`: of rows that come next."""
        warm_up = min(WARM_UP, len(self.ends) - 1)
        if not warm_up:
            sys.exit("One step alone tells no speed: ask for more STEPS.")
        speed = sum(tokens[warm_up:]) / (self.ends[-1] - self.ends[warm_up - 1])
        memory = peak_memory()  # before anything below takes some
        return {
            "speed": speed,
            **memory,
            "device": PLACE.type,
            "loss": statistics.fmean(self.losses[-4:]),
            "losses": self.losses,
            "after": loss_of(model, work["next"]),
            "share": share_of_peak(speed, model, [len(row["input_ids"]) - 1 for row in work["rows"]]),
        }


def loss_of(model: Any, rows: list[dict[str, Any]]) -> float:
    """Mean over the answers' tokens, each row by itself: nothing that packing, padding or another order changes."""
    total, count = 0.0, 0
    with torch.no_grad():
        for row in rows:
            ids = torch.tensor([row["input_ids"]], device=PLACE)
            learnt = torch.tensor(row["completion_mask"][1:], dtype=torch.bool, device=PLACE)
            logits = model(input_ids=ids, use_cache=False).logits[0, :-1][learnt].float()
            total += float(torch.nn.functional.cross_entropy(logits, ids[0, 1:][learnt], reduction="sum"))
            count += int(learnt.sum())
    return total / count


def row_tokens(work: dict[str, Any]) -> list[int]:
    """Real tokens of each step."""
    rows_a_step = work["rows_a_step"]
    lengths = [len(row["input_ids"]) - 1 for row in work["rows"]]
    return [sum(lengths[at : at + rows_a_step]) for at in range(0, len(lengths), rows_a_step)]
