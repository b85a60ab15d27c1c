"""The parts of a base model that can be trained: its linear layers, and all modules with weights. No torch."""

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
    """Module paths of a base model.

    layers: linear layers except the output head. targets: those of them that can get LoRA.
    modules: leaf modules with the shapes of their weights. blocks: modules with submodules. own: blocks with weights of
    their own. table: the input embeddings. head: the output head.
    """

    layers: Mapping[str, LayerSize]
    targets: tuple[str, ...]
    modules: Mapping[str, Shapes]
    blocks: tuple[str, ...]
    own: Mapping[str, Shapes]
    table: str
    head: str

    @cached_property
    def holders(self) -> Mapping[str, Shapes]:
        """All modules with weights of their own."""
        return {**self.modules, **self.own}

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def read(cls, file: Path) -> "BaseParts":
        told = json.loads(file.read_text(encoding="utf-8"))
        lists = {name: tuple(told[name]) for name in ("targets", "blocks")}
        return cls(**told | lists | {"layers": {name: LayerSize(*size) for name, size in told["layers"].items()}})


def whole_modules(config: LoraConfig, names: Iterable[str]) -> list[str]:
    """The modules that an adapter contains in full."""
    return [name for name in names if config.saves(name)]


def biased_modules(config: LoraConfig, parts: BaseParts) -> list[str]:
    """The modules of which an adapter contains only the bias."""
    if config.bias != "all":
        return []
    return [
        name
        for name, shapes in parts.modules.items()
        if "bias" in shapes and not config.saves(name) and not (name in parts.layers and config.targets(name))
    ]


def own_shapes(config: LoraConfig, parts: BaseParts) -> Shapes:
    """Tensor names and shapes of what an adapter overrides besides its LoRA updates.

    Raises TrainerError if it overrides something that cannot differ between the rows of a batch.
    """
    if blocks := whole_modules(config, parts.blocks):
        text = f"modules_to_save names {blocks[0][:80]}, which is not a single layer of the base model."
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
