"""What of a base model can learn, told without torch: its layers, and all modules that have weights."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from trainer.adapter_format import PREFIX, LayerSize, LoraConfig, refused

Shapes = dict[str, list[int]]
TOKENS_KEY = "token_adapter.trainable_tokens_delta"


@dataclass(frozen=True, kw_only=True)
class BaseParts:
    """`layers` are the linear ones but the output head; `targets` those of them that a training can put an update on;
    `modules` all with nothing below them, each with the shapes of its weights; `blocks` those with others below, and
    `own` such of them as have weights beside; `table` the embeddings, `head` what the scores come from."""

    layers: Mapping[str, LayerSize]
    targets: tuple[str, ...]
    modules: Mapping[str, Shapes]
    blocks: tuple[str, ...]
    own: Mapping[str, Shapes]
    table: str
    head: str

    @cached_property
    def holders(self) -> Mapping[str, Shapes]:
        """All that have weights of their own."""
        return {**self.modules, **self.own}

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def read(cls, file: Path) -> "BaseParts":
        told = json.loads(file.read_text(encoding="utf-8"))
        lists = {name: tuple(told[name]) for name in ("targets", "blocks")}
        return cls(**told | lists | {"layers": {name: LayerSize(*size) for name, size in told["layers"].items()}})


def whole_modules(config: LoraConfig, names: Iterable[str]) -> list[str]:
    """The modules that an adapter has whole."""
    return [name for name in names if config.saves(name)]


def biased_modules(config: LoraConfig, parts: BaseParts) -> list[str]:
    """The modules of whose weights an adapter has the bias alone."""
    if config.bias != "all":
        return []
    return [
        name
        for name, shapes in parts.modules.items()
        if "bias" in shapes and not config.saves(name) and not (name in parts.layers and config.targets(name))
    ]


def own_shapes(config: LoraConfig, parts: BaseParts) -> Shapes:
    """The keys that the file holds for what an adapter has of its own beside updates, each with its shape.

    Raises TrainerError where that cannot be another one by row.
    """
    if blocks := whole_modules(config, parts.blocks):
        text = f"modules_to_save names {blocks[0][:80]}, which is no single layer of the base model."
        raise refused(text, "Name single layers, or use the adapter in plain PEFT.")
    found: Shapes = {}
    for name in whole_modules(config, parts.modules):
        found |= {f"{PREFIX}{name}.{part}": shape for part, shape in parts.modules[name].items()}
    for name in biased_modules(config, parts):
        found[f"{PREFIX}{name}.bias"] = parts.modules[name]["bias"]
    if tokens := config.trainable_token_indices:
        rows, width = parts.modules.get(parts.table, {}).get("weight", [0, 0])
        if max(tokens) >= rows:
            raise refused("trainable_token_indices names a token that the base lacks.", "Use the base it was made for.")
        found[f"{PREFIX}{parts.table}.{TOKENS_KEY}"] = [len(tokens), width]
    return found
