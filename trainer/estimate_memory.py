"""The memory of a training run by item: counted where it can be, measured where a process or an allocator decides.

No torch. The constants are measurements; `make bench ARGS=estimate` checks how well they hold.
"""

import dataclasses
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from trainer import SHAPES_KEPT
from trainer.estimate_layers import (
    HEADS,
    MAX_SHORT_LENGTH,
    BaseBytes,
    Facts,
    Sizes,
    compute_bytes,
    full_module_parameters,
    layer_shapes,
    lora_parameters,
    saved_values,
)
from trainer.spec import Dtype, TrainSpec

DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
MASTER_BYTES = 4 + 4  # float32 master weight and its gradient
ADAM_BYTES = {"adamw": 8, "adamw_8bit": 2, "paged_adamw": 8, "paged_adamw_8bit": 2}  # two moments
HEAD_CHUNK = 1 << 23  # logits at a time, see trainer.loss
SCORE_BYTES = 4 + 4  # a float32 logit and its log probability
MAX_USEFUL_TOKENS = {"cpu": 1024, "cuda": 16384}  # of a micro-batch: larger ones are no faster
DEQUANTIZED_SHARE = 0.5  # of free memory that dequantised weights may take
SURE_MARGIN = 0.8  # of that share: weights below it are dequantised even if a little less memory is free than expected
ACTIVATIONS_SHARE = 0.6  # of free memory, for choosing the micro-batch size
RECOMPUTE_OPTIONS = (0, 4, 3, 2)  # gradient checkpointing of no layer, every fourth, third, second; beyond that all
UNBOUNDED = 1 << 62
LONGER_THAN_MEAN = 1.5  # row length in the largest micro-batch over the mean: rows are grouped by length
WINDOWS = 200  # sampled to find the largest micro-batch
# Lower and upper bound of the activations, as factors: for known row lengths, and for an assumed length.
KNOWN_LENGTHS_RANGE, UNKNOWN_LENGTHS_RANGE = (0.93, 1.12), (0.7, 1.2)

# A process with torch, transformers, peft and bitsandbytes before its first step, without a model: measured, with the
# demo model's tokenizer. On a GPU this is the driver's context and the libraries' own buffers.
PROCESS_BYTES = {"cpu": 0.575e9, "cuda": 0.6e9}
BEFORE_LOADING = 0.53e9  # of these, already taken before the model is loaded on a CPU
# Memory beyond what is saved for the backward pass, measured: bytes, and a factor. On a CPU the factor applies to what
# one layer saves, without attention scores: in the backward pass it coexists with its own gradients, in a heap that
# fragments. On a GPU it applies to everything saved: torch's allocator rounds up.
WORKSPACE = {"cpu": (0.11e9, 2.1), "cuda": (0.1e9, 0.04)}
LONG_ROWS = 0.25  # of everything saved, in addition, if torch's own attention runs: its blocks fragment the heap
# oneDNN compiles bfloat16 matrix products for each exact shape: bytes of one kernel, measured, and how many are new per
# row length: in attention, and in the layers, whose shape follows the length of the micro-batch.
CODE_BYTES = 0.6e6
SHAPES_A_LENGTH = 34
# A tokenised row in main memory, measured: per token, and per row.
ROW_BYTES_PER_TOKEN, ROW_BYTES = 14, 100
FEW_ROWS_BYTES = 10e6  # rows that take less are no item
WORKSPACE_RECOMPUTING = {"cpu": WORKSPACE["cpu"], "cuda": (0.1e9, 0.1)}  # with gradient checkpointing


NO_LEVER = "No setting lowers it."


class Pass(NamedTuple):
    """A micro-batch: its tokens, and the length of the row that a token is in on average."""

    tokens: float
    width: float


@dataclass(frozen=True)
class MemoryItem:
    """One item of the memory, in bytes, and what would lower it.

    `in_peak`: whether the peak that a run reports includes it. On a GPU that is torch's own peak, without the driver's
    context.
    """

    name: str
    low: int
    expected: int
    high: int
    lever: str
    in_peak: bool = True


@dataclass(frozen=True)
class Hardware:
    """Where a job is to run: cpu or cuda, and its memory in bytes (0: unknown; unbounded for the activations).

    `tokens_per_second`: the speed of SFT steps on this base, see `trainer.estimate.plain_speed`.
    `auto_dtype`: what `model.dtype: auto` is there, see `trainer.auto_dtype`.
    """

    device: str = "cuda"
    memory_bytes: int = 0
    tokens_per_second: float | None = None
    auto_dtype: Dtype = "bfloat16"


def micro_batch_tokens(spec: TrainSpec, facts: Facts, *, free_bytes: int, device: str = "cuda") -> int:
    """Tokens of a micro-batch: the spec's, or what fits in the free memory."""
    if spec.optim.micro_batch_tokens:
        return spec.optim.micro_batch_tokens
    every = int(spec.optim.gradient_checkpointing)
    fitting = int(free_bytes * ACTIVATIONS_SHARE / activation_bytes_per_token(spec, facts, device=device, every=every))
    return max(spec.data.max_seq_length, min(MAX_USEFUL_TOKENS[device], fitting))


def recompute_every(spec: TrainSpec, facts: Facts, *, tokens: int, free_bytes: int, device: str = "cuda") -> int:
    """Which layers to checkpoint so that a micro-batch of so many tokens fits: one in every so many; 0: none, 1: all.

    Only as many as memory demands: recomputing everything costs a quarter of the speed.
    """
    if spec.optim.gradient_checkpointing:
        return 1
    room = free_bytes * ACTIVATIONS_SHARE
    for every in RECOMPUTE_OPTIONS:
        if tokens * activation_bytes_per_token(spec, facts, device=device, every=every) <= room:
            return every
    return 1


def activation_bytes_per_token(
    spec: TrainSpec, facts: Facts, *, device: str = "cuda", every: int = 0, width: float = 0
) -> float:
    """Bytes saved for the backward pass per token, in a row of `width` tokens (0: the longest).

    A checkpointed layer, one in `every`, saves only its input; one at a time is recomputed and saves the rest.
    """
    sizes = Sizes.of(facts)
    saved = saved_values(spec, facts, device=device, width=width or spec.data.max_seq_length)
    checkpointed = math.ceil(sizes.layers / every) if every else 0
    return compute_bytes(spec) * (sizes.hidden * checkpointed + saved * (sizes.layers - checkpointed + bool(every)))


def memory_items(
    spec: TrainSpec, facts: Facts, *, per_row: float, lengths: Sequence[int], read: int, hardware: Hardware
) -> tuple[MemoryItem, ...]:
    """All items. `per_row`: mean tokens per row; `lengths`: longest sequence of each row in a sample; `read`: rows over
    all steps."""
    device, number = hardware.device, compute_bytes(spec)
    lora, adam = lora_parameters(spec, facts), ADAM_BYTES[spec.optim.optimizer]
    weights = _weights(spec, facts, hardware)
    trainable = lora * (2 * number + MASTER_BYTES + adam)
    # Only the activations can shrink if memory is short: first smaller micro-batches, then gradient checkpointing.
    left = hardware.memory_bytes - weights.expected - PROCESS_BYTES[device] - trainable
    free = max(0, int(left)) if hardware.memory_bytes else UNBOUNDED
    budget = micro_batch_tokens(spec, facts, free_bytes=free, device=device)
    every = recompute_every(spec, facts, tokens=budget, free_bytes=free, device=device)
    largest = _largest_micro_batch(spec, budget=budget, per_row=per_row, lengths=lengths)
    per_token = activation_bytes_per_token(spec, facts, device=device, every=every, width=largest.width)
    saved = largest.tokens * per_token
    workspace = _workspace(spec, facts, largest, saved=saved, every=every, hardware=hardware)
    items: tuple[MemoryItem, ...] = (
        weights,
        _item("LoRA weights", lora * number, (1.0, 1.0), "Lower lora.r or train fewer layers."),
        _item("the optimizer's state", lora * (MASTER_BYTES + adam), (1.0, 1.05), _optimizer_lever(spec)),
        _item("gradients", _gradient_bytes(spec, facts), (0.5, 1.0), "Lower lora.r or train fewer layers."),
        _item(
            "activations",
            saved,
            KNOWN_LENGTHS_RANGE if lengths else UNKNOWN_LENGTHS_RANGE,
            _activation_lever(spec, every),
        ),
        _item("workspace of the computation", workspace, (0.6, 1.25), WORKSPACE_LEVER),
        _process(device),
    )
    if code := _code_for_lengths(spec, lengths, read, device):
        items = (*items, _item("kernels compiled for each row length", code, (0.5, 1.1), CODE_LEVER))
    if extra := _while_loading(spec, facts, hardware, weights, beside=sum(item.expected for item in items)):
        items = (*items, extra)
    return items


def row_items(spec: TrainSpec, *, rows: int, per_row: float, device: str) -> tuple[MemoryItem, ...]:
    """The tokenised rows, if they take enough to matter; KTO has each prompt twice. A GPU's memory holds none."""
    held = rows * (ROW_BYTES + per_row * ROW_BYTES_PER_TOKEN) * (2 if spec.data.method == "kto" else 1)
    if device != "cpu" or held < FEW_ROWS_BYTES:
        return ()
    return (_item("the dataset's rows", held, (0.5, 1.25), ROWS_LEVER),)


def _code_for_lengths(spec: TrainSpec, lengths: Sequence[int], read: int, device: str) -> float:
    """Kernels beyond those of the first rows. float32 needs none, and on a GPU they are part of the process."""
    if device != "cpu" or compute_bytes(spec) != DTYPE_BYTES["bfloat16"]:
        return 0.0
    distinct = min(read, len(set(lengths)) if lengths else spec.data.max_seq_length)
    return CODE_BYTES * min(SHAPES_KEPT, SHAPES_A_LENGTH * (distinct - 1))


def _process(device: str) -> MemoryItem:
    item = _item("the process itself", PROCESS_BYTES[device], (0.95, 1.05), NO_LEVER)
    return dataclasses.replace(item, in_peak=device == "cpu")


def _largest_micro_batch(spec: TrainSpec, *, budget: int, per_row: float, lengths: Sequence[int]) -> Pass:
    """The largest micro-batch of sampled windows, filled as `trainer.micro_batch` fills its first one."""
    sequences = 2 if spec.data.method == "dpo" else 1  # per row
    rows, longest = spec.optim.batch_size, spec.data.max_seq_length
    if not lengths:
        width = min(longest, max(1.0, per_row / sequences * LONGER_THAN_MEAN))
        return Pass(min(max(budget, sequences * width), rows * sequences * width), width)
    draw = random.Random(0)  # noqa: S311 # windows, not a secret
    windows = (sorted(draw.choices(lengths, k=rows), reverse=True) for _ in range(WINDOWS))
    return max(_first_bin([sequences * min(longest, one) for one in window], budget, sequences) for window in windows)


def _first_bin(window: list[int], budget: int, sequences: int) -> Pass:
    """The longest row, and every further one that still fits."""
    chosen: list[int] = []
    for tokens in window:
        if not chosen or sum(chosen) + tokens <= budget:
            chosen.append(tokens)
    total = sum(chosen)
    return Pass(total, sum(tokens * tokens for tokens in chosen) / total / sequences)


def _weights(spec: TrainSpec, facts: Facts, hardware: Hardware) -> MemoryItem:
    kind, base = spec.model.quantization, BaseBytes.of(spec, facts)
    whole = base.dequantized
    if kind == "none":
        unread = _unread_mmap(spec, facts, hardware)
        return MemoryItem(
            "the base model's weights",
            round(whole - unread),
            round(whole - unread / 2),
            round(whole * 1.02),
            WEIGHTS_LEVER[kind],
        )
    if _stays_quantized(spec, facts, hardware):
        return _item("the base model's weights", base.stored, (1.0, 1.02), WEIGHTS_LEVER[kind])
    lever = f"They are dequantised for speed, as memory allows it; quantised they take {base.stored / 1e9:.1f} GB."
    least = base.stored if _stays_quantized(spec, facts, hardware, room=SURE_MARGIN) else whole
    return MemoryItem("the base model's weights", round(least), round(whole), round(whole * 1.02), lever)


def _unread_mmap(spec: TrainSpec, facts: Facts, hardware: Hardware) -> int:
    """Bytes of a memory-mapped embedding table, of which only the rows' own tokens are ever read."""
    if hardware.device != "cpu" or facts.get("tied_embeddings", True) or not _is_mapped(spec, facts):
        return 0
    return int(facts["vocab_size"]) * int(facts["hidden_size"]) * compute_bytes(spec)


def _is_mapped(spec: TrainSpec, facts: Facts) -> bool:
    """Whether weights are used in the dtype of their file: on a CPU they then stay memory-mapped, without a copy."""
    number = compute_bytes(spec)
    return spec.model.quantization == "none" and DTYPE_BYTES.get(str(facts.get("dtype")), number) == number


def _stays_quantized(spec: TrainSpec, facts: Facts, hardware: Hardware, *, room: float = 1.0) -> bool:
    """Whether quantised weights do not fit dequantised, as `trainer.model` decides when it loads them.

    `room`: factor on the memory they may take.
    """
    if spec.model.quantization == "none":
        return False
    base = BaseBytes.of(spec, facts)
    free = hardware.memory_bytes - (base.stored + PROCESS_BYTES[hardware.device])
    return base.dequantized_layers >= room * free * DEQUANTIZED_SHARE


WEIGHTS_LEVER = {
    "nf4": "Choose a smaller base model.",
    "int8": "Use nf4, which takes half as much, or a smaller base model.",
    "none": "Use nf4, which takes a quarter, or a smaller base model.",
}
WORKSPACE_LEVER = "It grows with the micro-batch: lower optim.micro_batch_tokens or data.max_seq_length."
CODE_LEVER = "It does not grow over the run; no setting lowers it."
LOADING_LEVER = (
    "The base's file and its converted weights are both in memory while it loads: a smaller base takes less."
)

LOFTQ_LEVER = "loftq reads the whole base again in float32: another lora.init_lora_weights does not."
ROWS_LEVER = "All tokenised rows are in main memory: fewer or shorter rows take less."


def _optimizer_lever(spec: TrainSpec) -> str:
    fewer = "Lower lora.r or train fewer layers."
    return fewer if "8bit" in spec.optim.optimizer else f"{fewer} The 8-bit optimizer takes less than half as much."


def _activation_lever(spec: TrainSpec, every: int) -> str:
    if every == 1:
        return "Lower data.max_seq_length, or optim.micro_batch_tokens, which cannot go below it."
    return "Lower optim.micro_batch_tokens or data.max_seq_length, or turn on optim.gradient_checkpointing."


def _item(name: str, expected: float, spread: tuple[float, float], lever: str) -> MemoryItem:
    return MemoryItem(name, round(expected * spread[0]), round(expected), round(expected * spread[1]), lever)


def _score_bytes(facts: Facts, largest: Pass) -> float:
    """Logits and log probabilities of one chunk."""
    return min(HEAD_CHUNK, largest.tokens * int(facts["vocab_size"])) * SCORE_BYTES


def _gradient_bytes(spec: TrainSpec, facts: Facts) -> float:
    """Of all trainable parameters. That of a full module is converted to float32 before it is accumulated, and a
    trained head gets one from each chunk of the loss beside the sum so far."""
    number, full = compute_bytes(spec), full_module_parameters(spec, facts)
    head = int(facts["vocab_size"]) * int(facts["hidden_size"]) if set(HEADS) & set(spec.lora.modules_to_save) else 0
    return (lora_parameters(spec, facts) + head) * number + full * 4


def _workspace(spec: TrainSpec, facts: Facts, largest: Pass, *, saved: float, every: int, hardware: Hardware) -> float:
    """Short-lived memory: logits, gradients within a layer, allocator overhead, and the largest quantised layer,
    dequantised while it is used."""
    device, number = hardware.device, compute_bytes(spec)
    fixed, share = (WORKSPACE_RECOMPUTING if every else WORKSPACE)[device]
    without_scores = saved_values(spec, facts, device=device, width=0)  # scores are freed block by block
    of_layer = largest.tokens * number * without_scores
    largest_layer = max(layer_shapes(facts).values(), key=lambda shape: shape.size)
    dequantized = largest_layer.size * number * _stays_quantized(spec, facts, hardware)
    if spec.lora.use_dora:  # weight norms: each update as a full matrix, from a product with the identity
        dequantized += (2 * largest_layer.size + largest_layer.into**2) * number
    proportional = share * (of_layer if device == "cpu" else saved)
    if device == "cpu" and largest.width > MAX_SHORT_LENGTH:
        proportional += LONG_ROWS * saved
    return fixed + proportional + _score_bytes(facts, largest) + dequantized


def _while_loading(
    spec: TrainSpec, facts: Facts, hardware: Hardware, weights: MemoryItem, *, beside: int
) -> MemoryItem | None:
    """Main memory at the end of loading beyond what training takes: the mapped file and the converted weights.

    loftq then reads the whole base again, in float32, beside the weights it trains on, see `trainer.model`.
    """
    if hardware.device != "cpu" or _is_mapped(spec, facts):  # GPU memory holds no file
        return None
    file, again = int(facts.get("bytes") or 0), 0
    held: float = BaseBytes.of(spec, facts).stored
    if spec.lora.init_lora_weights == "loftq":
        held, again = weights.expected, int(facts["parameters"]) * DTYPE_BYTES["float32"]
        file *= facts.get("dtype") != "float32"  # a file in float32 is used where it is mapped
    surely = BEFORE_LOADING + held + again
    if (more := surely + file - beside) <= 0:
        return None
    low = max(0, round(surely - beside)) if again else 0  # pages of the file are given up if memory is short
    lever = LOFTQ_LEVER if again else LOADING_LEVER
    high = more + 0.2 * again  # loading holds copies of its own for a moment
    return MemoryItem("extra memory while the base is loaded", low, round(more), round(high), lever)
