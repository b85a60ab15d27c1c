"""Per-row overrides of base modules: whole modules, embeddings of single tokens, biases.

In PEFT's terms these are `modules_to_save`, `trainable_token_indices`, and biases of layers without LoRA. Rows of a
batch whose adapter has an override get its output in place of the base module's.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from bitsandbytes.nn.modules import Linear4bit, Linear8bitLt
from torch import Tensor, nn


class Override(Protocol):
    """What an adapter computes in place of a base module."""

    def output(self, y: Tensor, *inputs: Tensor) -> Tensor:
        """The output for these inputs, for which the base module's is `y`."""


@dataclass(frozen=True)
class ModuleOverride:
    """A full replacement: the base's output is not used."""

    module: nn.Module

    def output(self, y: Tensor, *inputs: Tensor) -> Tensor:
        return _run(self.module, *inputs).to(y.dtype)


@dataclass(frozen=True)
class EmbeddingOverride:
    """Embeddings of some tokens. `row_of`: (vocabulary,) -> row of `module`, -1 for the base's embedding."""

    module: nn.Module
    row_of: Tensor

    def output(self, y: Tensor, *inputs: Tensor) -> Tensor:
        row = self.row_of[inputs[0]]
        out = y.clone()
        out[row >= 0] = _run(self.module, row[row >= 0]).to(y.dtype)
        return out


@dataclass(frozen=True)
class TiedHeadOverride:
    """The same rows in an output head tied to the embeddings. `tokens`: whose logits they give."""

    module: nn.Module
    tokens: Tensor

    def output(self, y: Tensor, *inputs: Tensor) -> Tensor:
        return y.index_copy(-1, self.tokens, _run(self.module, *inputs).to(y.dtype))


@dataclass(frozen=True)
class RowOverrides:
    """The overrides of one module in a batch of `rows`, each with the rows that use it; None: all of them."""

    rows: int
    parts: tuple[tuple[Override, Tensor | None], ...]

    def change(self, module: nn.Module, inputs: Sequence[Tensor], y: Tensor) -> Tensor:
        """Some models flatten the rows: (rows * tokens, values)."""
        by_row = [self._by_row(one) for one in inputs]
        out = self._by_row(y)
        for override, rows in self.parts:
            if rows is None:
                out = override.output(out, *by_row)
            else:
                out = out.index_copy(0, rows, override.output(out[rows], *(one[rows] for one in by_row)))
        return out.reshape(y.shape)

    def _by_row(self, values: Tensor) -> Tensor:
        return values if values.shape[0] == self.rows else values.reshape(self.rows, -1, *values.shape[1:])


def row_overrides(overrides: Sequence[Override | None]) -> RowOverrides:
    """For a batch whose row i uses `overrides[i]`, or the base's own module if that is None."""
    distinct = {id(one): one for one in overrides if one is not None}
    if len(distinct) == 1 and None not in overrides:
        return RowOverrides(len(overrides), tuple((one, None) for one in distinct.values()))
    rows = {key: torch.tensor([at for at, one in enumerate(overrides) if id(one) == key]) for key in distinct}
    return RowOverrides(len(overrides), tuple((one, rows[key].to(_device(one))) for key, one in distinct.items()))


def leaf_modules(model: nn.Module) -> dict[str, nn.Module]:
    """The modules with weights and no children, by name."""
    return {
        name: one
        for name, one in model.named_modules()
        if not any(True for _ in one.children()) and any(True for _ in one.parameters(recurse=False))
    }


def copy_with_weights(module: nn.Module, values: Mapping[str, Tensor]) -> nn.Module:
    """A shallow copy of the module with these weights; all others are shared with the base."""
    is_quantized = isinstance(module, (Linear4bit, Linear8bitLt))
    own: Any = copy.copy(module)
    if is_quantized and "weight" in values:  # modules_to_save are never quantised
        own = nn.Linear(own.in_features, own.out_features, bias="bias" in values, device="meta")
    own._parameters = own._parameters | {
        name: nn.Parameter(value, requires_grad=False) for name, value in values.items()
    }
    return own  # type: ignore[no-any-return]


def embedding_override(embeddings: nn.Module, values: Tensor, tokens: Sequence[int]) -> EmbeddingOverride:
    """values: (tokens, hidden). A family's own scaling of its embeddings still applies."""
    own: Any = copy_with_weights(embeddings, {"weight": values})
    own.padding_idx = None
    row_of = torch.full((int(own.num_embeddings),), -1, device=values.device)
    row_of[list(tokens)] = torch.arange(len(tokens), device=values.device)
    return EmbeddingOverride(own, row_of)


def tied_head_override(values: Tensor, tokens: Sequence[int]) -> TiedHeadOverride:
    own = nn.Linear(values.shape[1], len(tokens), bias=False, device="meta")
    own.weight = nn.Parameter(values, requires_grad=False)
    return TiedHeadOverride(own, torch.tensor(tokens, device=values.device))


def _run(module: nn.Module, *inputs: Tensor) -> Tensor:
    """Call the module's forward without its hooks, which belong to the base's module."""
    forward: Callable[..., Tensor] = type(module).forward
    return forward(module, *inputs)


def _device(override: Override) -> torch.device:
    module: Any = override.module  # type: ignore[attr-defined]
    found: torch.device = next(module.parameters()).device
    return found
