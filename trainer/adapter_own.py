"""Finds in a base model what an adapter has of its own beside updates, and reads it: see `trainer.own_modules`."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from bitsandbytes.nn.modules import Linear4bit, Linear8bitLt
from torch import Tensor, nn

from trainer.adapter_format import PREFIX, LayerSize, LoraConfig
from trainer.base_layers import linear_paths
from trainer.base_parts import TOKENS_KEY, BaseParts, biased_modules, own_shapes, whole_modules
from trainer.own_modules import Own, OwnModule, own_copy, own_rows, own_scores, replaceable

Read = Callable[[str, torch.dtype], Tensor]  # a key of the file, in a number format


class OwnParts:
    """The modules of one base that a config means. Raises TrainerError where they cannot be another one by row."""

    def __init__(self, config: LoraConfig, model: Any, layers: Mapping[str, LayerSize]) -> None:
        modules, parts = replaceable(model), parts_of(model, layers)
        self.shapes = own_shapes(config, parts)
        self._whole = {name: modules[name] for name in whole_modules(config, parts.modules)}
        self._biased = {name: modules[name] for name in biased_modules(config, parts)}
        self._tokens = list(config.trainable_token_indices)
        self._embeddings: Any = model.get_input_embeddings()
        self._table = parts.table
        # Whatever has the embeddings' own weights changes with them: other tables, the output head.
        weight = self._embeddings.weight
        self._tied = {name: one for name, one in modules.items() if getattr(one, "weight", None) is weight}

    def read(self, read: Read) -> dict[str, Own]:
        """All of them by the name of the module that they stand for."""
        dtype = self._embeddings.weight.dtype
        found: dict[str, Own] = {}
        for name, module in self._whole.items():
            parts = [part for part, _ in module.named_parameters(recurse=False)]
            found[name] = OwnModule(own_copy(module, {part: read(f"{PREFIX}{name}.{part}", dtype) for part in parts}))
        for name, module in self._biased.items():
            found[name] = OwnModule(own_copy(module, {"bias": read(f"{PREFIX}{name}.bias", dtype)}))
        if self._tokens:
            values = read(f"{PREFIX}{self._table}.{TOKENS_KEY}", dtype)
            for name, module in self._tied.items():
                is_table = isinstance(module, nn.Embedding)
                found[name] = own_rows(module, values, self._tokens) if is_table else own_scores(values, self._tokens)
        return found


def parts_of(model: Any, layers: Mapping[str, LayerSize]) -> BaseParts:
    """What a model has; its weights need not be there."""
    blocks = {name: one for name, one in model.named_modules() if any(True for _ in one.children())}
    return BaseParts(
        layers=layers,
        targets=tuple(linear_paths(model)),
        modules={name: _shapes(one) for name, one in replaceable(model).items()},
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
    """Packed layers say their size apart from their weights."""
    if part == "weight" and isinstance(module, (Linear4bit, Linear8bitLt)):
        return [module.out_features, module.in_features]
    return list(weight.shape)
