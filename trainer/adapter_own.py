"""Finds in a base model what an adapter has of its own beside updates, and reads it: see `trainer.own_modules`."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from bitsandbytes.nn.modules import Linear4bit, Linear8bitLt
from torch import Tensor, nn

from trainer.adapter_format import PREFIX, LayerSize, LoraConfig, refused
from trainer.own_modules import Own, OwnModule, own_copy, own_rows, own_scores, replaceable

Read = Callable[[str, torch.dtype], Tensor]  # a key of the file, in a number format
TOKENS_KEY = "token_adapter.trainable_tokens_delta"


class OwnParts:
    """The modules of one base that a config means. Raises TrainerError where they cannot be another one by row."""

    def __init__(self, config: LoraConfig, model: Any, layers: Mapping[str, LayerSize]) -> None:
        modules = replaceable(model)
        self._whole = {name: one for name, one in modules.items() if config.saves(name)}
        parts = (name for name, one in model.named_modules() if any(True for _ in one.children()))
        if blocks := [name for name in parts if config.saves(name)]:
            text = f"modules_to_save names {blocks[0][:80]}, which is no single layer of the base model."
            raise refused(text, "Use the downloaded adapter in plain PEFT.")
        self._biased = {
            name: one
            for name, one in modules.items()
            if config.bias == "all" and getattr(one, "bias", None) is not None
            if name not in self._whole and not (name in layers and config.targets(name))
        }
        self._tokens = list(config.trainable_token_indices)
        embeddings: Any = model.get_input_embeddings()
        self._embeddings = embeddings
        self._table = next(name for name, one in model.named_modules() if one is embeddings)
        # Whatever has the embeddings' own weights changes with them: other tables, the output head.
        self._tied = {name: one for name, one in modules.items() if getattr(one, "weight", None) is embeddings.weight}
        if self._tokens and max(self._tokens) >= embeddings.weight.shape[0]:
            raise refused("trainable_token_indices names a token that the base lacks.", "Use the base it was made for.")

    def shapes(self) -> dict[str, list[int]]:
        """The keys that the file holds for them, each with its shape."""
        found: dict[str, list[int]] = {}
        for name, module in self._whole.items():
            for part, weight in module.named_parameters(recurse=False):
                found[f"{PREFIX}{name}.{part}"] = _shape(module, part, weight)
        for name, module in self._biased.items():
            found[f"{PREFIX}{name}.bias"] = list(module.bias.shape)  # type: ignore[arg-type]
        if self._tokens:
            found[f"{PREFIX}{self._table}.{TOKENS_KEY}"] = [len(self._tokens), self._embeddings.weight.shape[1]]
        return found

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


def _shape(module: nn.Module, part: str, weight: Tensor) -> list[int]:
    """Packed layers say their size apart from their weights."""
    if part == "weight" and isinstance(module, (Linear4bit, Linear8bitLt)):
        return [module.out_features, module.in_features]
    return list(weight.shape)
