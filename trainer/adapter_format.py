"""The format of an adapter's folder: its files, the supported config fields, and the tensors they imply. No torch.

PEFT loads any key that matches a module, so a file could overwrite the shared base, and it does not complain when
nothing matches. Here only known config fields are accepted, and the tensors must be exactly those that they imply.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from trainer.errors import TrainerError

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
MANIFEST = "manifest.json"
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
)
PREFIX = "base_model.model."  # PEFT's name for the wrapped base model
MAX_CONFIG_BYTES = 1 << 20
MAX_RANK = 1024
MAX_LAYERS = 1 << 16
MAX_TOKENS = 1 << 24
LAYER_NUMBER = re.compile(r"\.(\d+)\.")  # the first match in a path is the layer's index, as in PEFT
LARGEST = 1e4  # limit of absolute values: trained ones stay below 10, and far larger ones would overflow a product
DTYPES = ("F32", "F16", "BF16")
PLAIN_NAME = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*")

# Fields that affect the output are used, those that cannot are ignored, and any other field must be unset.
USED_FIELDS = {
    "peft_type",
    "r",
    "lora_alpha",
    "target_modules",
    "use_rslora",
    "use_dora",
    "rank_pattern",
    "alpha_pattern",
    "bias",
    "layers_to_transform",
    "modules_to_save",
    "trainable_token_indices",
}
BIASES = ("none", "lora_only", "all")
IGNORED_FIELDS = {
    "base_model_name_or_path",
    "layers_pattern",  # where a path has the layer's index; here it is found in the path and checked against the keys
    "fan_in_fan_out",  # the layout of the base's weight; that of A and B does not depend on it
    "inference_mode",
    "init_lora_weights",
    "lora_dropout",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "task_type",
}


class LayerSize(NamedTuple):
    """Of a linear layer in a base model."""

    in_features: int
    out_features: int
    has_bias: bool


class Entry(NamedTuple):
    """A tensor's entry in a safetensors header."""

    dtype: str
    shape: list[int]


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """The fields of adapter_config.json that affect what an adapter computes."""

    r: int
    lora_alpha: float
    target_modules: tuple[str, ...]
    use_rslora: bool
    use_dora: bool
    bias: str
    rank_pattern: dict[str, int]
    alpha_pattern: dict[str, float]
    layers_to_transform: tuple[int, ...] = ()
    modules_to_save: tuple[str, ...] = ()
    trainable_token_indices: tuple[int, ...] = ()

    @property
    def own_modules(self) -> str:
        """The field that trains more than LoRA layers and their biases; empty if none does."""
        if self.modules_to_save:
            return "modules_to_save"
        if self.trainable_token_indices:
            return "trainable_token_indices"
        return "bias" if self.bias == "all" else ""

    def saves(self, module: str) -> bool:
        """Whether a module was trained in full. Like PEFT, this matches any suffix of its path."""
        return any(module.endswith(name) for name in self.modules_to_save)

    def shapes(self, name: str, layer: LayerSize) -> dict[str, list[int]]:
        """The file's tensors for a layer: key -> shape."""
        key, rank = f"{PREFIX}{name}", self.rank_of(name)
        shapes = {f"{key}.lora_A.weight": [rank, layer.in_features], f"{key}.lora_B.weight": [layer.out_features, rank]}
        if self.use_dora:
            shapes[f"{key}.lora_magnitude_vector"] = [layer.out_features]
        if self.bias != "none" and layer.has_bias:
            shapes[f"{key}.base_layer.bias"] = [layer.out_features]
        return shapes

    def targets(self, layer: str) -> bool:
        if self.layers_to_transform:
            index = LAYER_NUMBER.search(layer)
            if index is None or int(index[1]) not in self.layers_to_transform:
                return False
        return any(name_matches(target, layer) for target in self.target_modules)

    def rank_of(self, layer: str) -> int:
        return next((rank for name, rank in self.rank_pattern.items() if name_matches(name, layer)), self.r)

    def scaling_of(self, layer: str) -> float:
        own = (alpha for name, alpha in self.alpha_pattern.items() if name_matches(name, layer))
        alpha = next(own, self.lora_alpha)
        rank = self.rank_of(layer)
        return alpha / math.sqrt(rank) if self.use_rslora else alpha / rank


def check_entries(
    entries: Mapping[str, Entry],
    layers: Mapping[str, LayerSize],
    config: LoraConfig,
    overrides: Mapping[str, list[int]] = MappingProxyType({}),
) -> list[str]:
    """The layers of this base that the config targets. Raises TrainerError unless the file has exactly their tensors.

    `overrides`: key -> shape of what the adapter overrides in the base besides. No values are read.
    """
    targeted = [name for name in layers if config.targets(name) and not config.saves(name)]
    expected = dict(overrides)
    for name in targeted:
        expected |= config.shapes(name, layers[name])
    if not targeted:
        raise refused("The adapter's target_modules name no layer of the base model.", "Use the base it was made for.")
    if extra := sorted(entries.keys() - expected.keys()):
        text = f"{WEIGHTS} contains {extra[0]!r:.160}, which does not belong to this adapter."
        raise refused(text, "Do not use this file.")
    if missing := sorted(expected.keys() - entries.keys()):
        raise refused(f"{WEIGHTS} lacks {missing[0]!r:.160}.", "Restore the adapter, or use the base it was made for.")
    for key, shape in expected.items():
        entry = entries[key]
        if entry.shape != shape:
            text = f"{key!r:.160} has the shape {entry.shape}, not {shape}."
            raise refused(text, "Use the base model it was made for.")
        if entry.dtype not in DTYPES:
            raise refused(f"{key!r:.160} is stored as {entry.dtype}.", f"Store it as one of {', '.join(DTYPES)}.")
    return targeted


def read_config(file: Path) -> LoraConfig:
    """Read adapter_config.json. Raises TrainerError naming the first field that is not supported or invalid."""
    data = read_object(file)
    if (kind := data.get("peft_type")) != "LORA":
        described = f"an adapter of the kind {kind[:40]}" if isinstance(kind, str) and kind else "no adapter"
        raise refused(f"{CONFIG} describes {described}, and only LORA is supported.", "Use a LoRA adapter.")
    for name, value in data.items():
        if name not in USED_FIELDS | IGNORED_FIELDS and value not in (None, False, {}, []):
            raise refused(f"{CONFIG} sets {name[:60]!r}, which is not supported.", "Use a plain LoRA adapter.")
    if (bias := data.get("bias", "none")) not in BIASES:
        raise refused(f"{CONFIG}: bias is {bias!r:.40}.", f"It is one of {', '.join(BIASES)}.")
    return LoraConfig(
        r=_rank(data.get("r"), "r"),
        lora_alpha=_alpha(data.get("lora_alpha"), "lora_alpha"),
        target_modules=_targets(data.get("target_modules")),
        use_rslora=data.get("use_rslora") is True,
        use_dora=data.get("use_dora") is True,
        bias=bias,
        rank_pattern={name: _rank(value, name) for name, value in _pattern(data, "rank_pattern").items()},
        alpha_pattern={name: _alpha(value, name) for name, value in _pattern(data, "alpha_pattern").items()},
        layers_to_transform=_layers(data.get("layers_to_transform")),
        modules_to_save=_modules(data.get("modules_to_save")),
        trainable_token_indices=_tokens(data.get("trainable_token_indices")),
    )


def _layers(value: Any) -> tuple[int, ...]:
    """Layer indices, empty for all. PEFT accepts a single number too."""
    numbers = [value] if isinstance(value, int) else value or []
    if not isinstance(numbers, list) or not all(type(one) is int and 0 <= one < MAX_LAYERS for one in numbers):
        raise refused(f"{CONFIG}: layers_to_transform is not a list of layer numbers.", "List numbers such as 0, 1.")
    return tuple(numbers)


def _modules(value: Any) -> tuple[str, ...]:
    if not value:
        return ()
    if not isinstance(value, list) or not all(_is_plain(one) for one in value):
        raise refused(f"{CONFIG}: modules_to_save is not a list of plain module names.", "List names such as lm_head.")
    return tuple(value)


def _tokens(value: Any) -> tuple[int, ...]:
    """Token ids. PEFT's other form, a mapping from module names, could name any modules and is refused."""
    numbers = value or []
    if not isinstance(numbers, list) or not all(type(one) is int and 0 <= one < MAX_TOKENS for one in numbers):
        text = f"{CONFIG}: trainable_token_indices is not a list of token ids."
        raise refused(text, "Save it with a list of token ids.")
    return tuple(numbers)


def read_object(file: Path) -> dict[str, Any]:
    """The JSON object in a config file of limited size. Raises TrainerError."""
    if not file.is_file():
        raise refused(f"{CONFIG} is missing.", "Restore the adapter, or train it again.")
    if file.stat().st_size > MAX_CONFIG_BYTES:
        raise refused(f"{CONFIG} is too large.", "Restore the adapter.")
    try:
        data = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise refused(f"{CONFIG} is not valid JSON.", "Restore the adapter.") from error
    if not isinstance(data, dict):
        raise refused(f"{CONFIG} is not a JSON object.", "Restore the adapter.")
    return data


def _targets(value: Any) -> tuple[str, ...]:
    """Plain names only. PEFT takes a string as a regular expression, which could backtrack without end."""
    if not isinstance(value, list) or not value or not all(_is_plain(one) for one in value):
        raise refused(f"{CONFIG}: target_modules is not a list of plain module names.", "List names such as q_proj.")
    return tuple(value)


def _pattern(data: dict[str, Any], name: str) -> dict[str, Any]:
    value = data.get(name) or {}
    if not isinstance(value, dict) or not all(_is_plain(key) for key in value):
        raise refused(f"{CONFIG}: {name} is not a mapping from plain module names.", "Write name: number.")
    return value


def _is_plain(name: Any) -> bool:
    return isinstance(name, str) and PLAIN_NAME.fullmatch(name) is not None


def _rank(value: Any, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_RANK:
        raise refused(f"{CONFIG}: the rank {name[:60]} is {value!r:.40}.", f"Ranks are from 1 to {MAX_RANK}.")
    return value


def _alpha(value: Any, name: str) -> float:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not abs(value) <= LARGEST:  # also true for NaN and for integers too large for a float
        raise refused(f"{CONFIG}: {name[:60]} is {value!r:.40}.", "Use a plain number.")
    return float(value)


def name_matches(target: str, layer: str) -> bool:
    """Whether a plain name matches the layer's path as in PEFT: it is the whole path, or a suffix after a dot."""
    return layer == target or layer.endswith(f".{target}")


def refused(text: str, fix: str) -> TrainerError:
    return TrainerError("user_config", text, fix)
