"""A base model's layers, derived from its facts: shapes, trainable parameters, saved activations. No torch."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

from trainer.lora_spec import TOKEN_TABLES
from trainer.spec import Dtype, TrainSpec

Facts = Mapping[str, Any]

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj", "out_proj", "q", "k", "v", "o")
HEADS = ("lm_head", "embed_out")  # output heads
TABLES = (*TOKEN_TABLES, *HEADS)
# Bytes per weight of a frozen linear layer. nf4: half a byte and a share of its block's double-quantised scale.
BYTES_PER_WEIGHT = {"nf4": 0.516, "int8": 1.004}
# Prefixes of architecture names. One layer computes queries, keys and values:
FUSED_QKV = ("GPT2", "GPTNeoX", "GPTBigCode", "Bloom", "Falcon", "Phi3")
FUSED_GATE = ("Phi3", "Glm")  # and one the gate and the up projection
# What families call the layers of `layer_shapes`.
OTHER_NAMES = {
    "qkv": ("qkv_proj", "query_key_value", "c_attn"),
    "o_proj": ("out_proj", "dense", "c_proj"),
    "up_proj": ("dense_h_to_4h", "c_fc", "fc1"),
    "down_proj": ("dense_4h_to_h", "c_proj", "fc2"),
}
# Queries and keys have norms of their own (QK norm), which save their inputs:
QK_NORM = ("Qwen3", "Gemma3", "Olmo2")
# On a CPU attention saves its probabilities for rows up to this length, by blocks of queries: see short_attention.
MAX_SHORT_LENGTH, BLOCK = 1024, 128
DROPOUT_SAVES = 1.3  # times a layer's input, measured: the dropped-out input, and a mask for some
NORM_SCALES = 4  # two norms, one float32 each, counted in values of two bytes


class Shape(NamedTuple):
    """Output and input width of a linear layer."""

    out: int
    into: int

    @property
    def size(self) -> int:
        return self.out * self.into


class Sizes(NamedTuple):
    """Widths in a decoder layer: residual stream, MLP, all query heads, all key heads."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    queries: int
    keys: int

    @classmethod
    def of(cls, facts: Facts) -> "Sizes":
        hidden, heads = int(facts["hidden_size"]), int(facts.get("heads") or 1)
        width = int(facts.get("head_dim") or hidden // heads)
        intermediate = int(facts.get("intermediate_size") or 4 * hidden)
        keys = int(facts.get("kv_heads") or heads) * width
        layers = max(int(facts["layers"]), int(facts.get("decoder_layers") or 0))
        return cls(layers, hidden, intermediate, heads, heads * width, keys)


class FamilyExtras(NamedTuple):
    """What a family's layer saves beyond others, in multiples of the residual and MLP widths. `attention_dropout`: its
    config has one, which is active in training."""

    hidden: int = 0
    intermediate: int = 0
    attention_dropout: bool = False


# GPT-2 writes its activation function out in five operations.
FAMILIES = {"GPT2": FamilyExtras(hidden=4, intermediate=3, attention_dropout=True)}


def with_dtype(spec: TrainSpec, auto: Dtype) -> TrainSpec:
    """The spec with its dtype as on a device where `auto` is this one."""
    if spec.model.dtype != "auto":
        return spec
    return dataclasses.replace(spec, model=dataclasses.replace(spec.model, dtype=auto))


def compute_bytes(spec: TrainSpec) -> int:
    """Bytes of a value in the compute dtype; `auto` that was not resolved (`with_dtype`) is taken for bfloat16."""
    return 4 if spec.model.dtype == "float32" else 2


def layer_count(facts: Facts) -> float:
    """How often the model repeats the layers of `layer_shapes`."""
    layers = int(facts["layers"])
    return (layers + int(facts["decoder_layers"])) / 2 if facts.get("task") == "seq2seq" else layers


class BaseBytes(NamedTuple):
    """Bytes of a frozen base: its linear layers as stored and in the compute dtype, and everything else."""

    layers: float
    dequantized_layers: int
    other: int

    @classmethod
    def of(cls, spec: TrainSpec, facts: Facts) -> "BaseBytes":
        number = compute_bytes(spec)
        values = round(sum(shape.size for shape in layer_shapes(facts).values()) * layer_count(facts))
        other = max(0, int(facts["parameters"]) - values)
        return cls(values * BYTES_PER_WEIGHT.get(spec.model.quantization, number), values * number, other * number)

    @property
    def stored(self) -> float:
        return self.layers + self.other

    @property
    def dequantized(self) -> int:
        return self.dequantized_layers + self.other


def layer_shapes(facts: Facts) -> dict[str, Shape]:
    """The linear layers of one decoder layer, under the names most families use; of an encoder–decoder, of one layer
    on each side."""
    sizes = Sizes.of(facts)
    if facts.get("task") == "seq2seq":
        return _seq2seq_shapes(sizes, facts)
    found = {
        "q_proj": Shape(sizes.queries, sizes.hidden),
        "k_proj": Shape(sizes.keys, sizes.hidden),
        "v_proj": Shape(sizes.keys, sizes.hidden),
        "o_proj": Shape(sizes.hidden, sizes.queries),
    }
    if _is(facts, FUSED_QKV):
        found = {"qkv": Shape(sizes.queries + 2 * sizes.keys, sizes.hidden), "o_proj": found["o_proj"]}
    if _is(facts, FUSED_GATE):
        return found | {
            "gate_up_proj": Shape(2 * sizes.intermediate, sizes.hidden),
            "down_proj": Shape(sizes.hidden, sizes.intermediate),
        }
    if _is_gated(facts, sizes):
        found["gate_proj"] = Shape(sizes.intermediate, sizes.hidden)
    return found | {
        "up_proj": Shape(sizes.intermediate, sizes.hidden),
        "down_proj": Shape(sizes.hidden, sizes.intermediate),
    }


def _is(facts: Facts, families: tuple[str, ...]) -> bool:
    return str(facts.get("architecture", "")).startswith(families)


def _is_gated(facts: Facts, sizes: Sizes) -> bool:
    """Whether the MLP has a gate projection: the parameter count, less the embeddings, has room for three layers."""
    if facts.get("parameters") is None:
        return True
    attention = 2 * sizes.hidden * (sizes.queries + sizes.keys)
    in_layers = sizes.layers * (attention + 3 * sizes.hidden * sizes.intermediate)
    return in_layers + int(facts["vocab_size"]) * sizes.hidden <= int(facts["parameters"])


def _seq2seq_shapes(sizes: Sizes, facts: Facts) -> dict[str, Shape]:
    is_t5 = "T5" in str(facts["architecture"])
    up = ("wi_0", "wi_1") if facts.get("gated_mlp") else ("wi",) if is_t5 else ("fc1",)
    *qkv, out = ("q", "k", "v", "o") if is_t5 else ("q_proj", "k_proj", "v_proj", "out_proj")
    found: dict[str, Shape] = {}
    for part in ("encoder", "decoder", "decoder.cross"):
        found |= {f"{part}.{name}": Shape(sizes.queries, sizes.hidden) for name in qkv}
        found[f"{part}.{out}"] = Shape(sizes.hidden, sizes.queries)
    for part in ("encoder", "decoder"):
        found |= {f"{part}.{name}": Shape(sizes.intermediate, sizes.hidden) for name in up}
        found[f"{part}.{'wo' if is_t5 else 'fc2'}"] = Shape(sizes.hidden, sizes.intermediate)
    return found


def lora_parameters(spec: TrainSpec, facts: Facts) -> int:
    """Number of trainable parameters: r (in + out) for every LoRA layer, and whatever else the spec trains.

    rank_pattern is matched by the last part of each name. Trained biases are too few to count.
    """
    lora, hidden = spec.lora, int(facts["hidden_size"])
    shapes = layer_shapes(facts)
    ranks = {name.rpartition(".")[2]: rank for name, rank in lora.rank_pattern.items()}
    layers = len(lora.layers_to_transform) or layer_count(facts)
    per_layer = 0
    for path, shape in shapes.items():
        name = path.rpartition(".")[2]
        if _is_target(spec, name) and not set(_names(name)) & set(lora.modules_to_save):
            rank = next((ranks[one] for one in _names(name) if one in ranks), lora.r)
            per_layer += rank * (shape.out + shape.into) + (shape.out if lora.use_dora else 0)
    return round(layers * per_layer) + full_module_parameters(spec, facts) + len(lora.trainable_token_indices) * hidden


def full_module_parameters(spec: TrainSpec, facts: Facts) -> int:
    """Number of parameters in modules_to_save."""
    shapes = layer_shapes(facts)
    return sum(_module_size(name.rpartition(".")[2], facts, shapes) for name in spec.lora.modules_to_save)


def _module_size(name: str, facts: Facts, shapes: Mapping[str, Shape]) -> int:
    """Number of parameters of all modules of this name: linear layers, an embedding table or output head, or norms."""
    layers, hidden = int(facts["layers"]), int(facts["hidden_size"])
    if named := [shape for path, shape in shapes.items() if name in _names(path)]:
        return layers * sum(shape.size for shape in named)
    return int(facts["vocab_size"]) * hidden if name in TABLES else layers * hidden


def _is_target(spec: TrainSpec, name: str) -> bool:
    targets = spec.lora.target_modules
    group = "attention" if name in (*ATTENTION, "qkv") else "mlp"
    return targets in ("all-linear", group) or (not isinstance(targets, str) and bool(set(_names(name)) & set(targets)))


def _names(name: str) -> tuple[str, ...]:
    """A layer's name in `layer_shapes`, and what families call it."""
    return (name, *OTHER_NAMES.get(name, ()))


def target_shapes(spec: TrainSpec, facts: Facts) -> list[Shape]:
    """The shapes, (out, in), of those of `layer_shapes` that get LoRA."""
    return [shape for path, shape in layer_shapes(facts).items() if _is_target(spec, path.rpartition(".")[2])]


def saved_values(spec: TrainSpec, facts: Facts, *, device: str, width: float) -> float:
    """Values, in the compute dtype, that one layer saves per token for the backward pass.

    Norms and matrix products save their inputs. The count is exact for the Llama family, compared with what autograd
    saves (see trainer.lean_layers). `width`: tokens in the row. Every token of an encoder–decoder is counted as one of
    the decoder's, the more expensive side.
    """
    sizes, trained = Sizes.of(facts), target_shapes(spec, facts)
    is_gated = not {"gate_proj", "gate_up_proj"}.isdisjoint(layer_shapes(facts))
    extras = next((one for name, one in FAMILIES.items() if _is(facts, (name,))), FamilyExtras())
    saved: float = (
        (4 if is_gated else 5) * sizes.hidden + 2 * (sizes.queries + sizes.keys) + 2 * sizes.heads + NORM_SCALES
    )
    # Gate and up; the down projection's input only if dropout or DoRA keep it from being recomputed.
    saves_product = is_gated and (spec.lora.lora_dropout or spec.lora.use_dora)
    saved += (3 if saves_product else 2) * sizes.intermediate + spec.lora.r * len(trained)
    saved += extras.hidden * sizes.hidden + extras.intermediate * sizes.intermediate
    if _is(facts, QK_NORM):
        saved += sizes.queries + sizes.keys
    if facts.get("task") == "seq2seq":
        saved += 2 * (sizes.hidden + sizes.queries + sizes.keys + sizes.heads) + NORM_SCALES
    if spec.lora.lora_dropout:
        saved += DROPOUT_SAVES * sum(shape.into for shape in trained)
    if spec.lora.use_dora:  # each layer's output before its magnitude is applied, and its input
        saved += sum(shape.out + shape.into for shape in trained) + (sizes.intermediate if is_gated else 0)
    if extras.attention_dropout and device == "cpu":  # torch's math kernel, in float32: scores, softmax, dropout
        return saved + 3 * 4 / compute_bytes(spec) * sizes.heads * width
    return saved + _saved_by_attention(facts, sizes, device=device, width=width)


def _saved_by_attention(facts: Facts, sizes: Sizes, *, device: str, width: float) -> float:
    """Values per token: its scores against the row if attention saves them, else what it saves instead."""
    if facts.get("softcapped"):  # eager attention saves its scores twice, in float32
        return 4 * sizes.heads * width
    if device != "cpu":
        return 0.0
    if width > MAX_SHORT_LENGTH:  # torch's own kernel, whose outputs are then concatenated
        return sizes.queries
    return sizes.heads * min(width, (width + BLOCK) / 2)  # causal: to the right only the rest of a block
