"""Finds and reads what an adapter overrides in a base model besides its LoRA updates: see `trainer.own_modules`."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from bitsandbytes.nn.modules import Linear4bit, Linear8bitLt
from torch import Tensor, nn

from trainer.adapter_format import PREFIX, LayerSize, LoraConfig
from trainer.base_layers import linear_paths
from trainer.base_parts import TOKENS_KEY, BaseParts, biased_modules, own_shapes, whole_modules
from trainer.own_modules import (
    ModuleOverride,
    Override,
    copy_with_weights,
    embedding_override,
    leaf_modules,
    tied_head_override,
)

Read = Callable[[str, torch.dtype], Tensor]  # (key in the file, dtype)


class OverrideReader:
    """The overrides of one base that a config names. Raises TrainerError if they cannot be applied per row."""

    def __init__(self, config: LoraConfig, model: Any, layers: Mapping[str, LayerSize]) -> None:
        modules, parts = leaf_modules(model), parts_of(model, layers)
        self.shapes = own_shapes(config, parts)
        self._whole = {name: modules[name] for name in whole_modules(config, parts.modules)}
        self._biased = {name: modules[name] for name in biased_modules(config, parts)}
        self._tokens = list(config.trainable_token_indices)
        self._embeddings: Any = model.get_input_embeddings()
        self._table = parts.table
        # Modules that share the embedding weight change with it: other embeddings, a tied output head.
        weight = self._embeddings.weight
        self._tied = {name: one for name, one in modules.items() if getattr(one, "weight", None) is weight}

    def read(self, read: Read) -> dict[str, Override]:
        """All overrides, by the name of the module."""
        dtype = self._embeddings.weight.dtype
        found: dict[str, Override] = {}
        for name, module in self._whole.items():
            parts = [part for part, _ in module.named_parameters(recurse=False)]
            found[name] = ModuleOverride(
                copy_with_weights(module, {part: read(f"{PREFIX}{name}.{part}", dtype) for part in parts})
            )
        for name, module in self._biased.items():
            found[name] = ModuleOverride(copy_with_weights(module, {"bias": read(f"{PREFIX}{name}.bias", dtype)}))
        if self._tokens:
            values = read(f"{PREFIX}{self._table}.{TOKENS_KEY}", dtype)
            for name, module in self._tied.items():
                is_table = isinstance(module, nn.Embedding)
                found[name] = (
                    embedding_override(module, values, self._tokens)
                    if is_table
                    else tied_head_override(values, self._tokens)
                )
        return found


def parts_of(model: Any, layers: Mapping[str, LayerSize]) -> BaseParts:
    """The parts of a model, whose weights may be on the meta device."""
    blocks = {name: one for name, one in model.named_modules() if any(True for _ in one.children())}
    return BaseParts(
        layers=layers,
        targets=tuple(linear_paths(model)),
        modules={name: _shapes(one) for name, one in leaf_modules(model).items()},
        blocks=tuple(blocks),
        own={name: shapes for name, one in blocks.items() if (shapes := _shapes(one))},
        table=_name_of(model, model.get_input_embeddings()),
        head=_name_of(model, model.get_output_embeddings()),
    )


def _name_of(model: Any, module: Any) -> str:
    return next((name for name, one in model.named_modules() if one is module), "")


def _shapes(module: nn.Module) -> dict[str, list[int]]:
    return {part: _shape(module, part, weight) for part, weight in module.named_parameters(recurse=False)}


def _shape(module: nn.Module, part: str, weight: Tensor) -> list[int]:
    """Quantised weights have another shape than the layer."""
    if part == "weight" and isinstance(module, (Linear4bit, Linear8bitLt)):
        return [module.out_features, module.in_features]
    return list(weight.shape)
