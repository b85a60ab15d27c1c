"""Estimates what a run of a spec will take: memory by item, time, and how to lower the largest item. No torch."""

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from trainer.estimate_layers import Facts, layer_count, layer_shapes, lora_parameters, with_dtype
from trainer.estimate_memory import (
    ADAM_BYTES,
    DEQUANTIZED_SHARE,
    NO_LEVER,
    PROCESS_BYTES,
    Hardware,
    MemoryItem,
    activation_bytes_per_token,
    memory_items,
    micro_batch_tokens,
    recompute_every,
    row_items,
)
from trainer.estimate_shards import per_gpu
from trainer.formats.splitting import TRAIN
from trainer.spec import TrainSpec

__all__ = [
    "ADAM_BYTES",
    "PROCESS_BYTES",
    "DEQUANTIZED_SHARE",
    "Estimate",
    "MemoryItem",
    "Hardware",
    "ObservedPeak",
    "activation_bytes_per_token",
    "with_evaluation_rows",
    "with_split_holdout",
    "layer_count",
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
    "with_dtype",
]

FORWARD_SHARE = 1 / 3  # of a training step's time
GENERAL_TOKENS = 1500  # in the text that forgetting is measured on; about the same for every tokenizer
# Factors by which earlier jobs may correct an estimate; beyond that they do not compare.
CALIBRATION_LIMITS = (0.5, 2.0)
ENOUGH_JOBS = 3  # so many correct it in full


class ObservedPeak(NamedTuple):
    """An earlier job's measured memory peak, and the prediction for it (`Estimate.in_peak`). Bytes."""

    predicted: int
    peak: int


@dataclass(frozen=True)
class Estimate:
    """What a run will take. `seconds`: None if the machine's speed is unknown. `jobs`: how many calibrated it."""

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
        """Expected bytes of the items that a run's reported peak includes, for comparison with it."""
        return sum(item.expected for item in self.items if item.in_peak)

    @property
    def largest(self) -> MemoryItem:
        return max(self.items, key=lambda item: item.expected)

    @property
    def advice(self) -> str:
        """In words: the largest item that can be lowered, and what would do so."""
        lowered = max((one for one in self.items if one.lever != NO_LEVER), key=lambda one: one.expected)
        what = "Most of it" if lowered == self.largest else "The largest part that a setting lowers"
        return f"{what} is {lowered.name}. {lowered.lever}"


def estimate(
    spec: TrainSpec,
    facts: Facts,
    *,
    rows: int,
    tokens: int,
    lengths: Sequence[int] = (),
    on: Hardware | None = None,
) -> Estimate:
    """Memory and time of a spec on a base model with these `facts` (see `trainer.bases.inspect_folder`).

    `rows` and `tokens` are the dataset's; `lengths`: the longest sequence of each row in a sample.
    """
    hardware = on or Hardware()
    spec = with_dtype(spec, hardware.auto_dtype)
    train_rows = max(1, rows - held_out_rows(rows, _holdout_share(spec)))
    steps = optimizer_steps(spec, rows=train_rows)
    per_row = min(tokens / max(1, rows), spec.data.max_seq_length * (2 if spec.data.method == "dpo" else 1))
    rows_read = steps * min(spec.optim.batch_size, train_rows)
    trained = round(rows_read * per_row)
    forward_only = _evaluation_tokens(spec, rows=rows, steps=steps, per_row=per_row)
    forward_only += _reference_tokens(spec, rows=rows, trained=trained, per_row=per_row)
    seconds = (
        (trained + forward_only * FORWARD_SHARE) / hardware.tokens_per_second if hardware.tokens_per_second else None
    )
    items = memory_items(spec, facts, per_row=per_row, lengths=lengths, read=rows_read, hardware=hardware)
    items += row_items(spec, rows=rows, per_row=per_row, device=hardware.device)
    items = per_gpu(spec, facts, items, hardware)
    return Estimate(items, steps, trained, seconds)


def calibrated(found: Estimate, observed: Sequence[ObservedPeak]) -> Estimate:
    """The estimate corrected by the median ratio of measured to predicted peak in earlier jobs of the same kind.

    The peak does not tell which item was off, so each is corrected in proportion to its uncertainty: the size of the
    weights is known, that of the activations is not. Fewer than `ENOUGH_JOBS` correct it in part, and never lower its
    upper end: the next job may be of another shape.
    """
    if not observed:
        return found
    ratio = statistics.median(one.peak / max(1, one.predicted) for one in observed)
    ratio = min(max(ratio, CALIBRATION_LIMITS[0]), CALIBRATION_LIMITS[1])
    trust = min(1.0, len(observed) / ENOUGH_JOBS)
    uncertain = sum(one.high - one.low for one in found.items if one.in_peak)
    share = (ratio - 1) * trust * found.in_peak / max(1, uncertain)
    items = tuple(_moved(one, share, keep_high=trust < 1) if one.in_peak else one for one in found.items)
    return dataclasses.replace(found, items=items, jobs=len(observed))


def _moved(item: MemoryItem, share: float, *, keep_high: bool) -> MemoryItem:
    """The item moved by a share of its range."""
    by = round((item.high - item.low) * share)
    low, expected, high = (max(0, value + by) for value in (item.low, item.expected, item.high))
    return dataclasses.replace(item, low=low, expected=expected, high=max(high, item.high) if keep_high else high)


def plain_speed(spec: TrainSpec, reported: float) -> float:
    """Tokens per second of SFT steps, from the speed a job of this spec reported: KTO adds a forward pass per step."""
    return reported * (1 + FORWARD_SHARE) if spec.data.method == "kto" else reported


def _reference_tokens(spec: TrainSpec, *, rows: int, trained: int, per_row: float) -> float:
    """Forward-only tokens of DPO and KTO: reference log probabilities of all rows, once, before the first step.

    KTO also scores mismatched prompts and answers for its KL estimate, then and in every step.
    """
    if spec.data.method == "sft":
        return 0.0
    once = rows * per_row
    return once if spec.data.method == "dpo" else 2 * once + trained


def _evaluation_tokens(spec: TrainSpec, *, rows: int, steps: int, per_row: float) -> float:
    """Forward-only tokens of all evaluations: held-out rows and general text, before the first step and after some."""
    held_out = held_out_rows(rows, _holdout_share(spec))
    if not held_out:
        return 0.0
    per_epoch = math.ceil((rows - held_out) / spec.optim.batch_size)
    answers = 2 if spec.data.method == "kto" else 1  # KTO scores each prompt with a mismatched answer too
    per_evaluation = answers * held_out * per_row + (GENERAL_TOKENS if spec.evaluation.forgetting else 0)
    return per_evaluation * (1 + evaluations_after(0, every=spec.evaluation.every_steps or per_epoch, steps=steps))


def evaluations_after(step: int, *, every: int, steps: int) -> int:
    """How many evaluations follow this step: one per interval, and one at the end."""
    return math.ceil(steps / every) - step // every if step < steps else 0


def with_split_holdout(spec: TrainSpec, splits: Mapping[str, int], rows: int) -> tuple[TrainSpec, int]:
    """The spec with the holdout share that the dataset's own splits amount to, and the number of rows a run reads.

    `splits`: rows in each named split; see `trainer.holding_out`.
    """
    if not spec.data.split or not splits:
        return spec, rows
    held_out = splits.get(spec.data.split, 0)
    rows -= sum(count for name, count in splits.items() if name not in (TRAIN, spec.data.split))
    if spec.data.holdout_path:  # evaluation uses another file instead
        return spec, rows - held_out
    share = held_out / max(1, rows) if held_out else spec.data.holdout
    return dataclasses.replace(spec, data=dataclasses.replace(spec.data, holdout=share)), rows


def with_evaluation_rows(spec: TrainSpec, rows: int, held_out: int) -> tuple[TrainSpec, int]:
    """The spec with a share that holds out exactly `held_out` rows beside `rows` to learn from, and their sum."""
    together = rows + held_out
    data = dataclasses.replace(spec.data, holdout=held_out / max(1, together), holdout_path="")
    return dataclasses.replace(spec, data=data), together


def _holdout_share(spec: TrainSpec) -> float:
    """Share of the rows that are held out: none if evaluation uses another file."""
    return 0.0 if spec.data.holdout_path else spec.data.holdout


def held_out_rows(rows: int, share: float) -> int:
    """Number of rows held out for evaluation: at least one if any share is asked for, and never all."""
    return min(max(1, round(rows * share)), rows - 1) if share and rows > 1 else 0


def optimizer_steps(spec: TrainSpec, *, rows: int) -> int:
    """Optimizer steps over `rows` training rows. The last batch of an epoch may be smaller."""
    per_epoch = math.ceil(rows / spec.optim.batch_size)
    steps = max(1, math.ceil(spec.optim.epochs * per_epoch - 1e-9))
    return min(steps, spec.optim.max_steps) if spec.optim.max_steps else steps
