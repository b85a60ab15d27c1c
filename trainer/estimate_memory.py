"""The memory of a training by item: exact where it can be counted, measured where a process or an allocator decides.

No torch. What was measured stands in the constants above each part; `make bench ARGS=estimate` tells how far they hold.
"""

import dataclasses
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from trainer import SHAPES_KEPT
from trainer.estimate_layers import (
    LONGEST_KEPT,
    BaseBytes,
    Facts,
    Sizes,
    kept_values,
    layer_shapes,
    lora_parameters,
    number_bytes,
    whole_parameters,
)
from trainer.spec import TrainSpec

DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
MASTER = 4 + 4  # float32 master and its gradient
ADAM_BYTES = {"adamw": 8, "adamw_8bit": 2, "paged_adamw": 8, "paged_adamw_8bit": 2}  # two averages
HEAD_CHUNK = 1 << 23  # scores at once, see trainer.loss
SCORE_BYTES = 4 + 4  # in float32, and their logarithms beside them
MOST_TOKENS = {"cpu": 1024, "cuda": 16384}  # more at once is no faster
DEQUANTIZED_SHARE = 0.5  # of the free memory that unpacked weights may take
SURELY = 0.8  # of that room: what fits into it is unpacked even where a little less is free than was thought
ACTIVATIONS_SHARE = 0.6  # of free memory, when the trainer chooses how many tokens go through at once
RECOMPUTE = (0, 4, 3, 2)  # no layer is computed again, a quarter, a third, half of them; else all
UNBOUNDED = 1 << 62
LONGER_THAN_MEAN = 1.5  # the rows of a pass, where only the mean length is known: like lengths go together
WINDOWS = 200  # that are drawn to find the largest pass
# The ends of what passes keep, as shares: of rows whose lengths are known, and others.
NEAR, FAR = (0.93, 1.12), (0.7, 1.2)

# A process with torch, transformers, peft and bitsandbytes before its first step, without a model: measured, with the
# demo model's tokenizer. On a GPU this is the driver's context and the libraries' own buffers.
PROCESS = {"cpu": 0.575e9, "cuda": 0.6e9}
BEFORE_LOADING = 0.53e9  # of these on a processor
# What computing takes beside what is kept, measured: bytes, and a share. On a processor the share is of what one layer
# keeps of a pass but for scores: on the way back it stands beside its own gradients, in a heap that reuses blocks
# badly. On a GPU it is of all that is kept: torch's own allocator rounds up.
AT_WORK = {"cpu": (0.13e9, 1.9), "cuda": (0.1e9, 0.04)}
LONG_ROWS = 0.25  # of all that is kept, besides, where torch's own attention takes rows: its blocks leave holes
# Of a processor's code for products in bfloat16, by their exact shape: bytes of one, measured, and how many are new
# with each length: in attention, and of passes, whose length follows.
CODE_BYTES = 0.6e6
SHAPES_A_LENGTH = 34
AT_WORK_AGAIN = {"cpu": AT_WORK["cpu"], "cuda": (0.1e9, 0.1)}  # where layers are computed again


class Pass(NamedTuple):
    """What goes through at once: so many tokens, each in a row of `width` on average."""

    tokens: float
    width: float


@dataclass(frozen=True)
class MemoryItem:
    """One part of the memory, in bytes, and what would lower it.

    `in_peak`: whether the peak that a training tells holds it too. On a GPU that peak is of torch's own memory, so the
    driver's context is not in it.
    """

    name: str
    low: int
    expected: int
    high: int
    lever: str
    in_peak: bool = True


@dataclass(frozen=True)
class Place:
    """Where a job is to run: cpu or cuda, and its memory (0: unknown). Plenty of it lets quantised weights unpack.

    `tokens_per_second`: what plain steps on this base reached there, see `trainer.estimate.plain_speed`.
    """

    device: str = "cuda"
    memory_bytes: int = 0
    tokens_per_second: float | None = None


def micro_batch_tokens(spec: TrainSpec, facts: Facts, *, free_bytes: int, device: str = "cuda") -> int:
    """How many tokens go through the model at once: what the spec says, or what fits in the free memory."""
    if spec.optim.micro_batch_tokens:
        return spec.optim.micro_batch_tokens
    every = int(spec.optim.gradient_checkpointing)
    fitting = int(free_bytes * ACTIVATIONS_SHARE / activation_bytes_per_token(spec, facts, device=device, every=every))
    return max(spec.data.max_seq_length, min(MOST_TOKENS[device], fitting))


def recompute_every(spec: TrainSpec, facts: Facts, *, tokens: int, free_bytes: int, device: str = "cuda") -> int:
    """How many layers are computed again on the way back, so that a pass of so many tokens fits: every so manieth one.

    0: none, as long as memory holds what they keep, for computing again costs a quarter of the speed; 1: all.
    """
    if spec.optim.gradient_checkpointing:
        return 1
    room = free_bytes * ACTIVATIONS_SHARE
    for every in RECOMPUTE:
        if tokens * activation_bytes_per_token(spec, facts, device=device, every=every) <= room:
            return every
    return 1


def activation_bytes_per_token(
    spec: TrainSpec, facts: Facts, *, device: str = "cuda", every: int = 0, width: float = 0
) -> float:
    """What one token, in a row of `width` (0: the longest), leaves behind for the backward pass.

    A layer that is computed again, one of `every`, keeps its input alone, and one of them at a time the rest.
    """
    sizes = Sizes.of(facts)
    kept = kept_values(spec, facts, device=device, width=width or spec.data.max_seq_length)
    again = math.ceil(sizes.layers / every) if every else 0
    return number_bytes(spec) * (sizes.hidden * again + kept * (sizes.layers - again + bool(every)))


def memory_items(
    spec: TrainSpec, facts: Facts, *, per_row: float, lengths: Sequence[int], read: int, place: Place
) -> tuple[MemoryItem, ...]:
    """All parts. `per_row`: tokens of a row on average; `lengths`: of some rows, what their longest sequence has;
    `read`: rows that all steps read."""
    device, number = place.device, number_bytes(spec)
    lora, adam = lora_parameters(spec, facts), ADAM_BYTES[spec.optim.optimizer]
    weights = _weights(spec, facts, place)
    learning = lora * (2 * number + MASTER + adam)
    # Nothing but the activations gives way where memory is short: first smaller passes, then layers computed again.
    left = place.memory_bytes - weights.expected - PROCESS[device] - learning
    free = max(0, int(left)) if place.memory_bytes else UNBOUNDED
    budget = micro_batch_tokens(spec, facts, free_bytes=free, device=device)
    every = recompute_every(spec, facts, tokens=budget, free_bytes=free, device=device)
    largest = _largest_pass(spec, budget=budget, per_row=per_row, lengths=lengths)
    a_token = activation_bytes_per_token(spec, facts, device=device, every=every, width=largest.width)
    kept = largest.tokens * a_token
    work = _at_work(spec, facts, largest, kept=kept, every=every, place=place)
    items: tuple[MemoryItem, ...] = (
        weights,
        _item("LoRA weights", lora * number, (1.0, 1.0), "Lower lora.r or train fewer layers."),
        _item("the optimizer's state", lora * (MASTER + adam), (1.0, 1.05), _optimizer_lever(spec)),
        _item("gradients", _gradient_bytes(spec, facts), (0.5, 1.0), "Lower lora.r or train fewer layers."),
        _item("activations", kept, NEAR if lengths else FAR, _activation_lever(spec, every)),
        _item("what computing takes beside them", work, (0.6, 1.25), WORK_LEVER),
        _process(device),
    )
    if code := _code_for_lengths(spec, lengths, read, device):
        items = (*items, _item("code made for rows of each length", code, (0.5, 1.1), CODE_LEVER))
    more = _while_loading(spec, facts, place) - sum(item.expected for item in items)
    return items if more <= 0 else (*items, _item("more of it while the base is read", more, (0.0, 1.0), LOADING_LEVER))


def _code_for_lengths(spec: TrainSpec, lengths: Sequence[int], read: int, device: str) -> float:
    """Beyond that of the first rows. float32 products need none, and on a GPU it is a part of the process."""
    if device != "cpu" or number_bytes(spec) != DTYPE_BYTES["bfloat16"]:
        return 0.0
    met = min(read, len(set(lengths)) if lengths else spec.data.max_seq_length)
    return CODE_BYTES * min(SHAPES_KEPT, SHAPES_A_LENGTH * (met - 1))


def _process(device: str) -> MemoryItem:
    item = _item("the process itself", PROCESS[device], (0.95, 1.05), "No value of the spec lowers it.")
    return dataclasses.replace(item, in_peak=device == "cpu")


def _largest_pass(spec: TrainSpec, *, budget: int, per_row: float, lengths: Sequence[int]) -> Pass:
    """The largest pass of windows of such rows, filled as `trainer.micro_batch` fills its first one."""
    a_row = 2 if spec.data.method == "dpo" else 1  # sequences
    rows, longest = spec.optim.batch_size, spec.data.max_seq_length
    if not lengths:
        width = min(longest, max(1.0, per_row / a_row * LONGER_THAN_MEAN))
        return Pass(min(max(budget, a_row * width), rows * a_row * width), width)
    draw = random.Random(0)  # noqa: S311 # windows, not a secret
    windows = (sorted(draw.choices(lengths, k=rows), reverse=True) for _ in range(WINDOWS))
    return max(_first_pass([a_row * min(longest, one) for one in window], budget, a_row) for window in windows)


def _first_pass(window: list[int], budget: int, a_row: int) -> Pass:
    """The longest row, and behind it each that there is room for."""
    taken: list[int] = []
    for tokens in window:
        if not taken or sum(taken) + tokens <= budget:
            taken.append(tokens)
    whole = sum(taken)
    return Pass(whole, sum(tokens * tokens for tokens in taken) / whole / a_row)


def _weights(spec: TrainSpec, facts: Facts, place: Place) -> MemoryItem:
    kind, base = spec.model.quantization, BaseBytes.of(spec, facts)
    whole = base.unpacked
    if kind == "none":
        unread = _seldom_read(spec, facts, place)
        return MemoryItem(
            "the base model's weights",
            round(whole - unread),
            round(whole - unread / 2),
            round(whole * 1.02),
            WEIGHTS_LEVER[kind],
        )
    packed = base.stored
    if _stays_packed(spec, facts, place):
        return _item("the base model's weights", packed, (1.0, 1.02), WEIGHTS_LEVER[kind])
    lever = f"They are unpacked for speed while memory is plenty; packed they take {packed / 1e9:.1f} GB."
    least = packed if _stays_packed(spec, facts, place, room=SURELY) else whole
    return MemoryItem("the base model's weights", round(least), round(whole), round(whole * 1.02), lever)


def _seldom_read(spec: TrainSpec, facts: Facts, place: Place) -> int:
    """Bytes of a table of tokens that only the rows' own words are read from, while it lies in a mapped file."""
    if place.device != "cpu" or facts.get("tied_embeddings", True) or not _is_mapped(spec, facts):
        return 0
    return int(facts["vocab_size"]) * int(facts["hidden_size"]) * number_bytes(spec)


def _is_mapped(spec: TrainSpec, facts: Facts) -> bool:
    """Whether weights are taken as they stand in their file; on a processor no copy of them is made then."""
    number = number_bytes(spec)
    return spec.model.quantization == "none" and DTYPE_BYTES.get(str(facts.get("dtype")), number) == number


def _stays_packed(spec: TrainSpec, facts: Facts, place: Place, *, room: float = 1.0) -> bool:
    """Whether there is no room to unpack quantised weights, as `trainer.model` finds out when they are loaded; or in
    what share of it there is none."""
    if spec.model.quantization == "none":
        return False
    base = BaseBytes.of(spec, facts)
    free = place.memory_bytes - (base.stored + PROCESS[place.device])
    return base.unpacked_layers >= room * free * DEQUANTIZED_SHARE


WEIGHTS_LEVER = {
    "nf4": "Choose a smaller base model.",
    "int8": "Use nf4, which takes half as much, or a smaller base model.",
    "none": "Use nf4, which takes a quarter, or a smaller base model.",
}
WORK_LEVER = "It follows what one layer keeps of a pass: lower optim.micro_batch_tokens or data.max_seq_length."
CODE_LEVER = "It does not grow further with the training; no value of the spec lowers it."
LOADING_LEVER = "For a moment the base model's file stands beside what is made of it: a smaller base takes less."


def _optimizer_lever(spec: TrainSpec) -> str:
    fewer = "Lower lora.r or train fewer layers."
    return fewer if "8bit" in spec.optim.optimizer else f"{fewer} The 8-bit optimizer takes less than half as much."


def _activation_lever(spec: TrainSpec, every: int) -> str:
    if every == 1:
        return "Lower data.max_seq_length, or optim.micro_batch_tokens as far as that allows."
    return "Lower optim.micro_batch_tokens or data.max_seq_length, or turn on optim.gradient_checkpointing."


def _item(name: str, expected: float, spread: tuple[float, float], lever: str) -> MemoryItem:
    return MemoryItem(name, round(expected * spread[0]), round(expected), round(expected * spread[1]), lever)


def _score_bytes(facts: Facts, largest: Pass) -> float:
    """Scores in the computing format and in float32, for one chunk."""
    return min(HEAD_CHUNK, largest.tokens * int(facts["vocab_size"])) * SCORE_BYTES


def _gradient_bytes(spec: TrainSpec, facts: Facts) -> float:
    """Of all that learns; a whole module's is made float32 before it is added to what was collected."""
    return lora_parameters(spec, facts) * number_bytes(spec) + whole_parameters(spec, facts) * 4


def _at_work(spec: TrainSpec, facts: Facts, largest: Pass, *, kept: float, every: int, place: Place) -> float:
    """What is there for a moment: scores of the vocabulary, gradients inside a layer and what the allocator holds
    beyond what lives; and the largest packed layer, unpacked while it is used."""
    device, number = place.device, number_bytes(spec)
    fixed, share = (AT_WORK_AGAIN if every else AT_WORK)[device]
    but_scores = kept_values(spec, facts, device=device, width=0)  # those go block by block
    of_layer = largest.tokens * number * but_scores
    largest_layer = max(layer_shapes(facts).values(), key=lambda shape: shape.size)
    unpacked = largest_layer.size * number * _stays_packed(spec, facts, place)
    if spec.lora.use_dora:  # lengths of the weights: each update as a matrix, made from the identity
        unpacked += (2 * largest_layer.size + largest_layer.into**2) * number
    follows = share * (of_layer if device == "cpu" else kept)
    if device == "cpu" and largest.width > LONGEST_KEPT:
        follows += LONG_ROWS * kept
    return fixed + follows + _score_bytes(facts, largest) + unpacked


def _while_loading(spec: TrainSpec, facts: Facts, place: Place) -> float:
    """What main memory holds when all of the base was read: its file, mapped, and what was made of it."""
    if place.device != "cpu" or _is_mapped(spec, facts):  # a GPU holds no file
        return 0.0
    return BEFORE_LOADING + int(facts.get("bytes") or 0) + BaseBytes.of(spec, facts).stored
