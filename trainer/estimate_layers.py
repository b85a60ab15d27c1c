"""The layers of a base model as its facts tell them: their shapes, what of them learns, what they keep. No torch."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from trainer.lora_spec import TOKEN_TABLES
from trainer.spec import TrainSpec

Facts = Mapping[str, Any]

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj", "out_proj", "q", "k", "v", "o")
TABLES = (*TOKEN_TABLES, "lm_head", "embed_out")
# Bytes a value of a frozen linear layer takes. nf4: half a byte and a share of its block's scale (double quantised).
STORED = {"nf4": 0.516, "int8": 1.004}
# Whose architectures begin so: queries, keys and values come from one layer.
FUSED = ("GPT2", "GPTNeoX", "GPTBigCode", "Bloom")
# Whose queries and keys have a norm of their own, which keeps what it was given.
NORMED_HEADS = ("Qwen3", "Gemma3", "Olmo2")
# On a CPU rows up to this length keep their attention's chances, in blocks of queries: see trainer.short_attention.
LONGEST_KEPT, BLOCK = 1024, 128
DROPOUT_KEEPS = 1.3  # of what a layer is given, measured: what is left of it, and a mask for some
NORM_SCALES = 4  # of both norms, one float32 each


class Shape(NamedTuple):
    """A linear layer: values out and in."""

    out: int
    into: int

    @property
    def size(self) -> int:
        return self.out * self.into


class Sizes(NamedTuple):
    """Widths of a decoder layer: of the residual, the MLP, all queries and all keys."""

    layers: int
    hidden: int
    middle: int
    heads: int
    queries: int
    keys: int

    @classmethod
    def of(cls, facts: Facts) -> "Sizes":
        hidden, heads = int(facts["hidden_size"]), int(facts.get("heads") or 1)
        width = int(facts.get("head_dim") or hidden // heads)
        middle = int(facts.get("intermediate_size") or 4 * hidden)
        keys = int(facts.get("kv_heads") or heads) * width
        layers = max(int(facts["layers"]), int(facts.get("decoder_layers") or 0))
        return cls(layers, hidden, middle, heads, heads * width, keys)


class Beyond(NamedTuple):
    """What a family's layer keeps beyond others, in widths of the residual and the MLP. `drops_scores`: its attention
    has a dropout of its own, which is on while it learns."""

    hidden: int = 0
    middle: int = 0
    drops_scores: bool = False


# GPT-2: its activation function is written out in five steps.
FAMILIES = {"GPT2": Beyond(hidden=4, middle=3, drops_scores=True)}


def number_bytes(spec: TrainSpec) -> int:
    """Bytes of a number in the format that is computed in; what `auto` takes has two, but on old processors."""
    return 4 if spec.model.dtype == "float32" else 2


def blocks(facts: Facts) -> float:
    """How many times the layers of `layer_shapes` are there."""
    layers = int(facts["layers"])
    return (layers + int(facts["decoder_layers"])) / 2 if facts.get("task") == "seq2seq" else layers


class BaseBytes(NamedTuple):
    """Bytes of a frozen base: of its linear layers as they are kept and in the computing format, and of all else."""

    layers: float
    unpacked_layers: int
    outside: int

    @classmethod
    def of(cls, spec: TrainSpec, facts: Facts) -> "BaseBytes":
        number = number_bytes(spec)
        values = round(sum(shape.size for shape in layer_shapes(facts).values()) * blocks(facts))
        outside = max(0, int(facts["parameters"]) - values)
        return cls(values * STORED.get(spec.model.quantization, number), values * number, outside * number)

    @property
    def stored(self) -> float:
        return self.layers + self.outside

    @property
    def unpacked(self) -> int:
        return self.unpacked_layers + self.outside


def layer_shapes(facts: Facts) -> dict[str, Shape]:
    """The linear layers of one decoder layer, by the names most families give them; of an encoder–decoder, one of
    each side."""
    sizes = Sizes.of(facts)
    if facts.get("task") == "seq2seq":
        return _two_sided_shapes(sizes, facts)
    found = {
        "q_proj": Shape(sizes.queries, sizes.hidden),
        "k_proj": Shape(sizes.keys, sizes.hidden),
        "v_proj": Shape(sizes.keys, sizes.hidden),
        "o_proj": Shape(sizes.hidden, sizes.queries),
    }
    if _is(facts, FUSED):
        found = {"qkv": Shape(sizes.queries + 2 * sizes.keys, sizes.hidden), "o_proj": found["o_proj"]}
    if _is_gated(facts, sizes):
        found["gate_proj"] = Shape(sizes.middle, sizes.hidden)
    return found | {"up_proj": Shape(sizes.middle, sizes.hidden), "down_proj": Shape(sizes.hidden, sizes.middle)}


def _is(facts: Facts, families: tuple[str, ...]) -> bool:
    return str(facts.get("architecture", "")).startswith(families)


def _is_gated(facts: Facts, sizes: Sizes) -> bool:
    """Whether the MLP has three layers: with a third one beside its table of tokens the model has no room for it."""
    if facts.get("parameters") is None:
        return True
    attention = 2 * sizes.hidden * (sizes.queries + sizes.keys)
    in_layers = sizes.layers * (attention + 3 * sizes.hidden * sizes.middle)
    return in_layers + int(facts["vocab_size"]) * sizes.hidden <= int(facts["parameters"])


def _two_sided_shapes(sizes: Sizes, facts: Facts) -> dict[str, Shape]:
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
    return round(layers * in_a_layer) + whole_parameters(spec, facts) + len(lora.trainable_token_indices) * hidden


def whole_parameters(spec: TrainSpec, facts: Facts) -> int:
    """Values of the modules that learn whole."""
    shapes = layer_shapes(facts)
    return sum(_whole_size(name.rpartition(".")[2], facts, shapes) for name in spec.lora.modules_to_save)


def _whole_size(name: str, facts: Facts, shapes: Mapping[str, Shape]) -> int:
    """Values of the modules of this name, which learn whole: a layer of each block, a table of all tokens, or norms."""
    layers, hidden = int(facts["layers"]), int(facts["hidden_size"])
    if name in shapes:
        return layers * shapes[name].size
    return int(facts["vocab_size"]) * hidden if name in TABLES else layers * hidden


def _is_target(spec: TrainSpec, name: str) -> bool:
    targets = spec.lora.target_modules
    group = "attention" if name in (*ATTENTION, "qkv") else "mlp"
    return targets in ("all-linear", group) or (not isinstance(targets, str) and name in targets)


def trained_shapes(spec: TrainSpec, facts: Facts) -> list[Shape]:
    return [shape for path, shape in layer_shapes(facts).items() if _is_target(spec, path.rpartition(".")[2])]


def kept_values(spec: TrainSpec, facts: Facts, *, device: str, width: float) -> float:
    """Values, in the computing format, that a token leaves behind in one layer for the backward pass.

    The count is exact for the Llama family (compared with what autograd saves, see trainer.lean_layers): norms and
    products keep their inputs. `width`: tokens of its row. Of an encoder–decoder each token counts as one of the
    decoder, the costlier side.
    """
    sizes, trained = Sizes.of(facts), trained_shapes(spec, facts)
    is_gated = "gate_proj" in layer_shapes(facts)
    beyond = next((more for name, more in FAMILIES.items() if _is(facts, (name,))), Beyond())
    kept: float = (
        (4 if is_gated else 5) * sizes.hidden + 2 * (sizes.queries + sizes.keys) + 2 * sizes.heads + NORM_SCALES
    )
    # Gate and up; what goes into the last product only where that layer's update needs it as it was.
    keeps_product = is_gated and (spec.lora.lora_dropout or spec.lora.use_dora)
    kept += (3 if keeps_product else 2) * sizes.middle + spec.lora.r * len(trained)
    kept += beyond.hidden * sizes.hidden + beyond.middle * sizes.middle
    if _is(facts, NORMED_HEADS):
        kept += sizes.queries + sizes.keys
    if facts.get("task") == "seq2seq":
        kept += 2 * (sizes.hidden + sizes.queries + sizes.keys + sizes.heads) + NORM_SCALES
    if spec.lora.lora_dropout:
        kept += DROPOUT_KEEPS * sum(shape.into for shape in trained)
    if spec.lora.use_dora:  # each layer's product before it gets its length, beside what it was made from
        kept += sum(shape.out + shape.into for shape in trained) + (sizes.middle if is_gated else 0)
    if beyond.drops_scores and device == "cpu":  # torch's own products in float32: scores, their chances, what is left
        return kept + 3 * 4 / number_bytes(spec) * sizes.heads * width
    return kept + _kept_scores(facts, sizes, device=device, width=width)


def _kept_scores(facts: Facts, sizes: Sizes, *, device: str, width: float) -> float:
    """A token's scores against the others of its row, where the attention keeps them; else what it keeps in their
    place."""
    if facts.get("softcapped"):  # eager attention keeps its scores, twice in float32
        return 4 * sizes.heads * width
    if device != "cpu":
        return 0.0
    if width > LONGEST_KEPT:  # torch's own kernel, whose result is copied to the others of its pass
        return sizes.queries
    return sizes.heads * min(width, (width + BLOCK) / 2)  # of what stands to the right only the rest of a block
