"""What a spec will take, told before it runs: memory by item, time, and what would lower the largest item. No torch."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from trainer.spec import TrainSpec

Facts = Mapping[str, Any]

# Bytes a value of a frozen linear layer takes. nf4: half a byte and a share of its block's scale (double quantised).
STORED = {"nf4": 0.516, "int8": 1.004, "none": 2.0}
FULL = 2.0  # bfloat16: embeddings, norms, head, activations
MASTER = 4 + 4  # float32 master and its gradient
ADAM_BYTES = {"adamw": 8, "adamw_8bit": 2, "paged_adamw": 8, "paged_adamw_8bit": 2}  # two averages
HEAD_CHUNK = 1 << 23  # scores at once, see trainer.loss
MOST_TOKENS = {"cpu": 1024, "cuda": 16384}  # more at once is no faster
NORM_SCALES = 4  # of both norms, one float32 each
LONGEST_KEPT = 512
UNPACKED_SHARE = 0.5  # of the free memory that unpacked weights may take
FORWARD_SHARE = 1 / 3  # of a training step's time goes into its forward pass
GENERAL_TOKENS = 1500  # of the text that forgetting is measured on, about the same for every tokenizer
ACTIVATIONS_SHARE = 0.6  # of free memory, when the trainer chooses how many tokens go through at once
RECOMPUTE = (0, 4, 3, 2)  # no layer is computed again, a quarter, a third, half of them; else all
UNBOUNDED = 1 << 62
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj", "out_proj", "q", "k", "v", "o")


class Shape(NamedTuple):
    """A linear layer: values out and in."""

    out: int
    into: int

    @property
    def size(self) -> int:
        return self.out * self.into


@dataclass(frozen=True)
class MemoryItem:
    """One part of the memory, in bytes, and what would lower it."""

    name: str
    low: int
    expected: int
    high: int
    lever: str


@dataclass(frozen=True)
class Place:
    """Where a job is to run: cpu or cuda, and its memory (0: unknown). Plenty of it lets quantised weights unpack."""

    device: str = "cuda"
    memory_bytes: int = 0


@dataclass(frozen=True)
class Estimate:
    """What a run will take. `seconds` is None while no speed of the machine is known."""

    items: tuple[MemoryItem, ...]
    steps: int
    tokens: int
    seconds: float | None

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
    def largest(self) -> MemoryItem:
        return max(self.items, key=lambda item: item.expected)

    @property
    def advice(self) -> str:
        """In words: the largest item and what would lower it."""
        return f"Most of it is {self.largest.name}. {self.largest.lever}"


def estimate(
    spec: TrainSpec,
    facts: Facts,
    *,
    rows: int,
    tokens: int,
    tokens_per_second: float | None = None,
    on: Place | None = None,
) -> Estimate:
    """Memory and time of a spec on a base model with these `facts` (see `trainer.bases.inspect_folder`).

    `rows` and `tokens` are the dataset's; `tokens_per_second` is what the machine reached on this base before.
    """
    place = on or Place()
    learnt = max(1, rows - held_out_rows(rows, _share(spec)))
    steps = optimizer_steps(spec, rows=learnt)
    per_row = min(tokens / max(1, rows), spec.data.max_seq_length * (2 if spec.data.method == "dpo" else 1))
    seen = round(steps * min(spec.optim.batch_size, learnt) * per_row)
    measured = _measured_tokens(spec, rows=rows, steps=steps, per_row=per_row)
    seconds = (seen + measured * FORWARD_SHARE) / tokens_per_second if tokens_per_second else None
    return Estimate(_memory(spec, facts, per_row=per_row, place=place), steps, seen, seconds)


def _measured_tokens(spec: TrainSpec, *, rows: int, steps: int, per_row: float) -> float:
    """Tokens read to measure, before the first step, at each interval and at the end: held-out rows, general text."""
    held_out = held_out_rows(rows, _share(spec))
    if not held_out:
        return 0.0
    per_epoch = math.ceil((rows - held_out) / spec.optim.batch_size)
    at_once = held_out * per_row + (GENERAL_TOKENS if spec.evaluation.forgetting else 0)
    return at_once * (1 + evaluations_after(0, every=spec.evaluation.every_steps or per_epoch, steps=steps))


def evaluations_after(step: int, *, every: int, steps: int) -> int:
    """How many evaluations come after that of this step: one an interval, and one at the end."""
    return math.ceil(steps / every) - step // every if step < steps else 0


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


def _memory(spec: TrainSpec, facts: Facts, *, per_row: float, place: Place) -> tuple[MemoryItem, ...]:
    shapes, device = layer_shapes(facts), place.device
    in_layers = round(sum(shape.size for shape in shapes.values()) * blocks(facts))
    outside = max(0, int(facts["parameters"]) - in_layers)
    lora, adam = lora_parameters(spec, facts), ADAM_BYTES[spec.optim.optimizer]
    weights, workspace = _weights(spec, in_layers, outside, place.memory_bytes), _workspace(spec, facts, device)
    # Nothing but the activations gives way where memory is short: first smaller passes, then layers computed again.
    left = place.memory_bytes - weights.expected - workspace - lora * (2 * FULL + MASTER + adam)
    free = max(0, int(left)) if place.memory_bytes else UNBOUNDED
    most = micro_batch_tokens(spec, facts, free_bytes=free, device=device)
    at_once = min(most, spec.optim.batch_size * max(per_row, 1.0) * 1.5)
    every = recompute_every(spec, facts, tokens=math.ceil(at_once), free_bytes=free, device=device)
    activations = at_once * activation_bytes_per_token(spec, facts, device=device, every=every)
    return (
        weights,
        _item("LoRA weights", lora * FULL, (1.0, 1.0), "Lower lora.r or train fewer layers."),
        _item("the optimizer's state", lora * (MASTER + adam), (1.0, 1.05), _optimizer_lever(spec)),
        _item("gradients", lora * FULL, (1.0, 1.0), "Lower lora.r or train fewer layers."),
        _item("activations", activations, (0.6, 1.3), _activation_lever(spec, every)),
        _item("scores of the vocabulary", _score_bytes(facts, at_once), (0.5, 1.2), "It is cut small already."),
        _item("workspace", workspace, (0.8, 1.5), "No value of the spec lowers it."),
    )


def _weights(spec: TrainSpec, in_layers: int, outside: int, memory: int) -> MemoryItem:
    kind = spec.model.quantization
    packed = in_layers * STORED[kind] + outside * FULL
    if kind == "none" or in_layers * FULL >= (memory - packed) * UNPACKED_SHARE:
        return _item("the base model's weights", packed, (1.0, 1.02), WEIGHTS_LEVER[kind])
    whole = (in_layers + outside) * FULL
    lever = f"They are unpacked for speed while memory is plenty; packed they take {packed / 1e9:.1f} GB."
    return MemoryItem("the base model's weights", round(packed), round(whole), round(whole * 1.02), lever)


WEIGHTS_LEVER = {
    "nf4": "Choose a smaller base model.",
    "int8": "Use nf4, which takes half as much, or a smaller base model.",
    "none": "Use nf4, which takes a quarter, or a smaller base model.",
}


def _optimizer_lever(spec: TrainSpec) -> str:
    fewer = "Lower lora.r or train fewer layers."
    return fewer if "8bit" in spec.optim.optimizer else f"{fewer} The 8-bit optimizer takes less than half as much."


def _activation_lever(spec: TrainSpec, every: int) -> str:
    if every == 1:
        return "Lower data.max_seq_length, or optim.micro_batch_tokens as far as that allows."
    return "Lower optim.micro_batch_tokens or data.max_seq_length, or turn on optim.gradient_checkpointing."


def _item(name: str, expected: float, spread: tuple[float, float], lever: str) -> MemoryItem:
    return MemoryItem(name, round(expected * spread[0]), round(expected), round(expected * spread[1]), lever)


class _Sizes(NamedTuple):
    """Widths of a decoder layer: of the residual, the MLP, all queries and all keys."""

    layers: int
    hidden: int
    middle: int
    heads: int
    queries: int
    keys: int

    @classmethod
    def of(cls, facts: Facts) -> "_Sizes":
        hidden, heads = int(facts["hidden_size"]), int(facts.get("heads") or 1)
        width = int(facts.get("head_dim") or hidden // heads)
        middle = int(facts.get("intermediate_size") or 4 * hidden)
        keys = int(facts.get("kv_heads") or heads) * width
        layers = max(int(facts["layers"]), int(facts.get("decoder_layers") or 0))
        return cls(layers, hidden, middle, heads, heads * width, keys)


def blocks(facts: Facts) -> float:
    """How many times the layers of `layer_shapes` are there."""
    layers = int(facts["layers"])
    return (layers + int(facts["decoder_layers"])) / 2 if facts.get("task") == "seq2seq" else layers


def layer_shapes(facts: Facts) -> dict[str, Shape]:
    """The linear layers of one decoder layer, as the Llama family has them; of an encoder–decoder, one of each side."""
    sizes = _Sizes.of(facts)
    if facts.get("task") == "seq2seq":
        return _two_sided_shapes(sizes, facts)
    return {
        "q_proj": Shape(sizes.queries, sizes.hidden),
        "k_proj": Shape(sizes.keys, sizes.hidden),
        "v_proj": Shape(sizes.keys, sizes.hidden),
        "o_proj": Shape(sizes.hidden, sizes.queries),
        "gate_proj": Shape(sizes.middle, sizes.hidden),
        "up_proj": Shape(sizes.middle, sizes.hidden),
        "down_proj": Shape(sizes.hidden, sizes.middle),
    }


def _two_sided_shapes(sizes: _Sizes, facts: Facts) -> dict[str, Shape]:
    is_t5 = "T5" in str(facts["architecture"])
    ways_in = ("wi_0", "wi_1") if facts.get("gated_mlp") else ("wi",) if is_t5 else ("fc1",)
    *into, out = ("q", "k", "v", "o") if is_t5 else ("q_proj", "k_proj", "v_proj", "out_proj")
    found: dict[str, Shape] = {}
    for part in ("encoder", "decoder", "decoder.cross"):
        found |= {f"{part}.{name}": Shape(sizes.queries, sizes.hidden) for name in into}
        found[f"{part}.{out}"] = Shape(sizes.hidden, sizes.queries)
    for part in ("encoder", "decoder"):
        found |= {f"{part}.{name}": Shape(sizes.middle, sizes.hidden) for name in ways_in}
        found[f"{part}.{'wo' if is_t5 else 'fc2'}"] = Shape(sizes.hidden, sizes.middle)
    return found


def lora_parameters(spec: TrainSpec, facts: Facts) -> int:
    """Values that are trained: r times (in + out) of every layer that gets an update, and what learns beside it.

    A pattern counts by the last word of its name; single biases are too few to count.
    """
    lora, hidden = spec.lora, int(facts["hidden_size"])
    shapes = layer_shapes(facts)
    ranks = {name.rpartition(".")[2]: rank for name, rank in lora.rank_pattern.items()}
    layers = len(lora.layers_to_transform) or blocks(facts)
    in_a_layer = 0
    for path, shape in shapes.items():
        name = path.rpartition(".")[2]
        if _is_target(spec, name) and name not in lora.modules_to_save:
            in_a_layer += ranks.get(name, lora.r) * (shape.out + shape.into) + (shape.out if lora.use_dora else 0)
    whole = sum(_whole_size(name.rpartition(".")[2], facts, shapes) for name in lora.modules_to_save)
    return round(layers * in_a_layer) + whole + len(lora.trainable_token_indices) * hidden


def _whole_size(name: str, facts: Facts, shapes: Mapping[str, Shape]) -> int:
    """Values of the modules of this name, which learn whole: a layer of each block, a table of all tokens, or norms."""
    layers, hidden = int(facts["layers"]), int(facts["hidden_size"])
    if name in shapes:
        return layers * shapes[name].size
    tables = ("embed_tokens", "lm_head", "wte", "embed_in", "embed_out", "word_embeddings")
    return int(facts["vocab_size"]) * hidden if name in tables else layers * hidden


def _is_target(spec: TrainSpec, name: str) -> bool:
    targets = spec.lora.target_modules
    group = "attention" if name in ATTENTION else "mlp"
    return targets in ("all-linear", group) or (not isinstance(targets, str) and name in targets)


def _trained_shapes(spec: TrainSpec, facts: Facts) -> list[Shape]:
    return [shape for path, shape in layer_shapes(facts).items() if _is_target(spec, path.rpartition(".")[2])]


def activation_bytes_per_token(spec: TrainSpec, facts: Facts, *, device: str = "cuda", every: int = 0) -> float:
    """What one token leaves behind for the backward pass.

    The count per layer is exact for the Llama family (compared with what autograd saves, see trainer.lean_layers):
    norms and products keep their inputs. A layer that is computed again, one of `every`, keeps its input alone, and
    one of them at a time the rest. Of an encoder–decoder each token counts as one of the decoder, the costlier side.
    """
    sizes = _Sizes.of(facts)
    trained = _trained_shapes(spec, facts)
    kept = 4 * sizes.hidden + 2 * sizes.queries + 2 * sizes.keys + 3 * sizes.middle + 2 * sizes.heads + NORM_SCALES
    kept += spec.lora.r * len(trained)
    if facts.get("task") == "seq2seq":
        kept += 2 * sizes.hidden + 2 * sizes.queries + 2 * sizes.keys + 2 * sizes.heads + NORM_SCALES
    if spec.lora.lora_dropout:
        kept += sum(shape.into for shape in trained)
    if facts.get("softcapped"):  # eager attention keeps its scores, twice
        kept += 4 * sizes.heads * spec.data.max_seq_length
    elif device == "cpu":  # probabilities of short rows, see trainer.short_attention
        kept += sizes.heads * min(spec.data.max_seq_length, LONGEST_KEPT)
    again = math.ceil(sizes.layers / every) if every else 0
    return FULL * (sizes.hidden * again + kept * (sizes.layers - again + bool(every)))


def _score_bytes(facts: Facts, at_once: float) -> float:
    """Scores in the computing format, in float32 and one scratch copy, for one chunk."""
    return min(HEAD_CHUNK, at_once * int(facts["vocab_size"])) * (2 + 4 + 4)


def _workspace(spec: TrainSpec, facts: Facts, device: str) -> float:
    """Libraries in memory, and the largest layer unpacked while it is used."""
    libraries = 0.9e9 if device == "cpu" else 0.6e9
    largest = max(shape.size for shape in layer_shapes(facts).values())
    return libraries + (largest * FULL if spec.model.quantization != "none" else 0.0)
