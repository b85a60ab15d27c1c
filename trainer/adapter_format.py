"""An adapter's folder, told without torch: its files, its config by a list of known fields, and what that promises.

PEFT alone loads any key that matches a module, so a file could overwrite the shared base; and it loads silently when
nothing matches. Here the config is taken field by field, and names and shapes of the weights must be exactly its set.
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
LAYER_NUMBER = re.compile(r"\.(\d+)\.")  # the first in a path, as PEFT finds it
LARGEST = 1e4  # trained values stay below 10; beyond this a product overflows
DTYPES = ("F32", "F16", "BF16")
PLAIN_NAME = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*")

# What decides the product is read; what cannot change it is passed over; any other field must be off.
READ = {
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
PASSED_OVER = {
    "base_model_name_or_path",
    "layers_pattern",  # where layers' numbers stand: read off their names here, and then held to the keys
    "fan_in_fan_out",  # how the base's weight lies; A and B lie alike
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
    """A linear layer of a base model: how many values go in and come out, and whether it adds a bias."""

    width: int
    height: int
    has_bias: bool


class Entry(NamedTuple):
    """A tensor as a safetensors header tells it."""

    dtype: str
    shape: list[int]


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """The fields of adapter_config.json that decide how A and B act."""

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
        """The field by which more is learnt than updates of linear layers and those layers' biases; empty for none."""
        if self.modules_to_save:
            return "modules_to_save"
        if self.trainable_token_indices:
            return "trainable_token_indices"
        return "bias" if self.bias == "all" else ""

    def saves(self, module: str) -> bool:
        """Whether a module learnt whole; PEFT takes any end of a path for its name."""
        return any(module.endswith(name) for name in self.modules_to_save)

    def shapes(self, name: str, layer: LayerSize) -> dict[str, list[int]]:
        """The keys that the file holds for a layer, each with its shape."""
        width, height, rank = layer.width, layer.height, self.rank_of(name)
        found = {f"{PREFIX}{name}.lora_A.weight": [rank, width], f"{PREFIX}{name}.lora_B.weight": [height, rank]}
        if self.use_dora:
            found[f"{PREFIX}{name}.lora_magnitude_vector"] = [height]
        if self.bias != "none" and layer.has_bias:
            found[f"{PREFIX}{name}.base_layer.bias"] = [height]
        return found

    def targets(self, layer: str) -> bool:
        if self.layers_to_transform:
            number = LAYER_NUMBER.search(layer)
            if number is None or int(number[1]) not in self.layers_to_transform:
                return False
        return any(means(target, layer) for target in self.target_modules)

    def rank_of(self, layer: str) -> int:
        return next((rank for name, rank in self.rank_pattern.items() if means(name, layer)), self.r)

    def scaling_of(self, layer: str) -> float:
        alpha = next((value for name, value in self.alpha_pattern.items() if means(name, layer)), self.lora_alpha)
        rank = self.rank_of(layer)
        return alpha / math.sqrt(rank) if self.use_rslora else alpha / rank


def check_entries(
    entries: Mapping[str, Entry],
    layers: Mapping[str, LayerSize],
    config: LoraConfig,
    beside: Mapping[str, list[int]] = MappingProxyType({}),
) -> list[str]:
    """The layers that the config means for this base, when the file holds exactly their keys, each with its shape.

    `beside` are keys of modules that the adapter has of its own. No value is read. Raises TrainerError.
    """
    targeted = [name for name in layers if config.targets(name) and not config.saves(name)]
    expected = dict(beside)
    for name in targeted:
        expected |= config.shapes(name, layers[name])
    if not targeted:
        raise refused("The adapter's target_modules name no layer of the base model.", "Use the base it was made for.")
    if extra := sorted(entries.keys() - expected.keys()):
        raise refused(f"{WEIGHTS} holds {extra[0]!r:.160}, which is no part of this adapter.", "Do not use this file.")
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
    """adapter_config.json by a list of known fields. Raises TrainerError naming the field that cannot be used."""
    data = read_object(file)
    if (kind := data.get("peft_type")) != "LORA":
        said = f"an adapter of the kind {kind[:40]}" if isinstance(kind, str) and kind else "no adapter"
        raise refused(f"{CONFIG} describes {said}, and only LORA is supported.", "Use a LoRA adapter.")
    for name, value in data.items():
        if name not in READ | PASSED_OVER and value not in (None, False, {}, []):
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
    """Numbers of layers, empty for all; PEFT takes a single number too."""
    numbers = [value] if isinstance(value, int) else value or []
    if not isinstance(numbers, list) or not all(type(one) is int and 0 <= one < MAX_LAYERS for one in numbers):
        raise refused(f"{CONFIG}: layers_to_transform is no list of layer numbers.", "List numbers such as 0, 1.")
    return tuple(numbers)


def _modules(value: Any) -> tuple[str, ...]:
    if not value:
        return ()
    if not isinstance(value, list) or not all(_is_plain(one) for one in value):
        raise refused(f"{CONFIG}: modules_to_save is no list of plain module names.", "List names such as lm_head.")
    return tuple(value)


def _tokens(value: Any) -> tuple[int, ...]:
    """Tokens of the embeddings. PEFT's other form, with names of modules, may mean any two tables."""
    numbers = value or []
    if not isinstance(numbers, list) or not all(type(one) is int and 0 <= one < MAX_TOKENS for one in numbers):
        text = f"{CONFIG}: trainable_token_indices is no list of token numbers."
        raise refused(text, "Save it with a list: these tokens of the embeddings.")
    return tuple(numbers)


def read_object(file: Path) -> dict[str, Any]:
    """The JSON object of a small file. Raises TrainerError."""
    if not file.is_file():
        raise refused(f"{CONFIG} is missing.", "Restore the adapter, or train it again.")
    if file.stat().st_size > MAX_CONFIG_BYTES:
        raise refused(f"{CONFIG} is too large.", "Restore the adapter.")
    try:
        data = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise refused(f"{CONFIG} is no JSON.", "Restore the adapter.") from error
    if not isinstance(data, dict):
        raise refused(f"{CONFIG} holds no object.", "Restore the adapter.")
    return data


def _targets(value: Any) -> tuple[str, ...]:
    """Plain names alone: PEFT reads a string as a regular expression, and some of those never end."""
    if not isinstance(value, list) or not value or not all(_is_plain(one) for one in value):
        raise refused(f"{CONFIG}: target_modules is no list of plain module names.", "List names such as q_proj.")
    return tuple(value)


def _pattern(data: dict[str, Any], name: str) -> dict[str, Any]:
    value = data.get(name) or {}
    if not isinstance(value, dict) or not all(_is_plain(key) for key in value):
        raise refused(f"{CONFIG}: {name} does not map plain module names.", "List names such as q_proj.")
    return value


def _is_plain(name: Any) -> bool:
    return isinstance(name, str) and PLAIN_NAME.fullmatch(name) is not None


def _rank(value: Any, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_RANK:
        raise refused(f"{CONFIG}: the rank {name[:60]} is {value!r:.40}.", f"A rank lies between 1 and {MAX_RANK}.")
    return value


def _alpha(value: Any, name: str) -> float:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not abs(value) <= LARGEST:  # also of NaN, and of integers that no float holds
        raise refused(f"{CONFIG}: {name[:60]} is {value!r:.40}.", "Use a plain number.")
    return float(value)


def means(target: str, layer: str) -> bool:
    """Whether a plain name means the layer, as PEFT matches it: the whole name, or its end after a dot."""
    return layer == target or layer.endswith(f".{target}")


def refused(text: str, fix: str) -> TrainerError:
    return TrainerError("user_config", text, fix)
