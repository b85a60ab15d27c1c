"""What a spec will take, told before it runs: memory by item, time, and what would lower the largest item. No torch."""

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from trainer.estimate_layers import Facts, blocks, layer_shapes, lora_parameters
from trainer.estimate_memory import (
    ADAM_BYTES,
    DEQUANTIZED_SHARE,
    PROCESS,
    MemoryItem,
    Place,
    activation_bytes_per_token,
    memory_items,
    micro_batch_tokens,
    recompute_every,
)
from trainer.estimate_shards import on_each_card
from trainer.formats.splitting import TRAIN
from trainer.spec import TrainSpec

__all__ = [
    "ADAM_BYTES",
    "PROCESS",
    "DEQUANTIZED_SHARE",
    "Estimate",
    "MemoryItem",
    "Place",
    "Taken",
    "activation_bytes_per_token",
    "as_divided",
    "blocks",
    "calibrated",
    "estimate",
    "evaluations_after",
    "held_out_rows",
    "layer_shapes",
    "lora_parameters",
    "micro_batch_tokens",
    "optimizer_steps",
    "plain_speed",
    "recompute_every",
]

FORWARD_SHARE = 1 / 3  # of a training step's time goes into its forward pass
GENERAL_TOKENS = 1500  # of the text that forgetting is measured on, about the same for every tokenizer
FARTHEST = 0.5, 2.0  # that earlier jobs may move an estimate: beyond that they were of another kind


class Taken(NamedTuple):
    """What an earlier job took at its peak, and what was foretold for that (`Estimate.in_peak`). Bytes."""

    foretold: int
    peak: int


@dataclass(frozen=True)
class Estimate:
    """What a run will take. `seconds` is None while no speed of the machine is known. `jobs`: that it was set by."""

    items: tuple[MemoryItem, ...]
    steps: int
    tokens: int
    seconds: float | None
    jobs: int = 0

    @property
    def low(self) -> int:
        return sum(item.low for item in self.items)

    @property
    def expected(self) -> int:
        return sum(item.expected for item in self.items)

    @property
    def high(self) -> int:
        return sum(item.high for item in self.items)

    @property
    def in_peak(self) -> int:
        """What is expected of the items that the peak of a training holds: the two can be compared."""
        return sum(item.expected for item in self.items if item.in_peak)

    @property
    def largest(self) -> MemoryItem:
        return max(self.items, key=lambda item: item.expected)

    @property
    def advice(self) -> str:
        """In words: the largest item that the spec can change, and what would lower it."""
        return f"Most of it is {self.largest.name}. {self.largest.lever}"


def estimate(
    spec: TrainSpec,
    facts: Facts,
    *,
    rows: int,
    tokens: int,
    lengths: Sequence[int] = (),
    on: Place | None = None,
) -> Estimate:
    """Memory and time of a spec on a base model with these `facts` (see `trainer.bases.inspect_folder`).

    `rows` and `tokens` are the dataset's, `lengths` what the longest sequence of each of some rows has.
    """
    learnt = max(1, rows - held_out_rows(rows, _share(spec)))
    steps = optimizer_steps(spec, rows=learnt)
    per_row = min(tokens / max(1, rows), spec.data.max_seq_length * (2 if spec.data.method == "dpo" else 1))
    learning = steps * min(spec.optim.batch_size, learnt)
    seen = round(learning * per_row)
    measured = _measured_tokens(spec, rows=rows, steps=steps, per_row=per_row)
    read = measured + _compared_tokens(spec, rows=rows, seen=seen, per_row=per_row)
    place = on or Place()
    seconds = (seen + read * FORWARD_SHARE) / place.tokens_per_second if place.tokens_per_second else None
    items = memory_items(spec, facts, per_row=per_row, lengths=lengths, read=learning, place=place)
    items = on_each_card(spec, facts, items, place)
    return Estimate(items, steps, seen, seconds)


def calibrated(found: Estimate, taken: Sequence[Taken]) -> Estimate:
    """The estimate moved as far as those of earlier jobs of this kind were off: by the median of their ratios.

    All parts of a peak are scaled alike, for it does not tell which was off.
    """
    if not taken:
        return found
    ratio = statistics.median(one.peak / max(1, one.foretold) for one in taken)
    ratio = min(max(ratio, FARTHEST[0]), FARTHEST[1])
    items = tuple(
        dataclasses.replace(
            item, low=round(item.low * ratio), expected=round(item.expected * ratio), high=round(item.high * ratio)
        )
        if item.in_peak
        else item
        for item in found.items
    )
    return dataclasses.replace(found, items=items, jobs=len(taken))


def plain_speed(spec: TrainSpec, told: float) -> float:
    """Tokens per second of plain steps, from what a job of this spec told: steps of KTO read other answers besides."""
    return told * (1 + FORWARD_SHARE) if spec.data.method == "kto" else told


def _compared_tokens(spec: TrainSpec, *, rows: int, seen: int, per_row: float) -> float:
    """Tokens read for methods that compare with the starting weights: all rows once, before the first step.

    KTO reads as many again of prompts with other answers, then and in every step.
    """
    if spec.data.method == "sft":
        return 0.0
    once = rows * per_row
    return once if spec.data.method == "dpo" else 2 * once + seen


def _measured_tokens(spec: TrainSpec, *, rows: int, steps: int, per_row: float) -> float:
    """Tokens read to measure, before the first step, at each interval and at the end: held-out rows, general text."""
    held_out = held_out_rows(rows, _share(spec))
    if not held_out:
        return 0.0
    per_epoch = math.ceil((rows - held_out) / spec.optim.batch_size)
    answers = 2 if spec.data.method == "kto" else 1  # its own and another's
    at_once = answers * held_out * per_row + (GENERAL_TOKENS if spec.evaluation.forgetting else 0)
    return at_once * (1 + evaluations_after(0, every=spec.evaluation.every_steps or per_epoch, steps=steps))


def evaluations_after(step: int, *, every: int, steps: int) -> int:
    """How many evaluations come after that of this step: one an interval, and one at the end."""
    return math.ceil(steps / every) - step // every if step < steps else 0


def as_divided(spec: TrainSpec, splits: Mapping[str, int], rows: int) -> tuple[TrainSpec, int]:
    """The spec with the share of rows that their own split keeps aside, and how many a training reads.

    `splits`: rows in each named one; see `trainer.holding_out`.
    """
    if not spec.data.split or not splits:
        return spec, rows
    measured = splits.get(spec.data.split, 0)
    rows -= sum(count for name, count in splits.items() if name not in (TRAIN, spec.data.split))
    if spec.data.holdout_path:  # those of another file are measured on in their place
        return spec, rows - measured
    share = measured / max(1, rows) if measured else spec.data.holdout
    return dataclasses.replace(spec, data=dataclasses.replace(spec.data, holdout=share)), rows


def _share(spec: TrainSpec) -> float:
    """Of the rows that are kept aside: none where another file is measured on."""
    return 0.0 if spec.data.holdout_path else spec.data.holdout


def held_out_rows(rows: int, share: float) -> int:
    """How many rows are kept aside to measure: at least one where any is asked for, and never all."""
    return min(max(1, round(rows * share)), rows - 1) if share and rows > 1 else 0


def optimizer_steps(spec: TrainSpec, *, rows: int) -> int:
    """Optimizer steps over `rows` rows to learn from: whole windows, the last of an epoch may be short."""
    per_epoch = math.ceil(rows / spec.optim.batch_size)
    steps = max(1, math.ceil(spec.optim.epochs * per_epoch - 1e-9))
    return min(steps, spec.optim.max_steps) if spec.optim.max_steps else steps
