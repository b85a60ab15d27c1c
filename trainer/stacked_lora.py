"""Batched multi-adapter LoRA: each row of a batch uses its own A and B, stacked, with two batched products per layer.

The update is LoRA's, `y = W x + s B A x` (Hu et al. 2021, https://arxiv.org/abs/2106.09685, section 4.1). A and B are
gathered once whenever the rows of the batch change, as in S-LoRA (Sheng et al. 2023,
https://arxiv.org/abs/2311.03285, section 5), so eight adapters cost about as much as one.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from trainer.own_modules import Override, RowOverrides, leaf_modules, row_overrides

Linear = nn.Linear | Conv1D


@dataclass(frozen=True)
class LoraPair:
    """One layer of an adapter: `a` (r, in), `b` (out, r), and the factor on their product.

    What else an adapter may change, both (out,): `magnitude_delta`, times the base's output without its bias, is added
    (DoRA); `bias_delta` is a trained bias less the base's own.
    """

    a: Tensor
    b: Tensor
    scaling: float
    magnitude_delta: Tensor | None = None
    bias_delta: Tensor | None = None


LoraWeights = dict[str, LoraPair | Override]  # by the layer's name in the base model


class OutputChange(Protocol):
    """What the rows of a batch change in the output of one module."""

    def change(self, module: Any, inputs: Sequence[Tensor], y: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class StackedLora:
    """One layer's adapters for the rows of a batch: `a` (rows, in, r), `b` (rows, r, out), `scaling` (rows, 1, 1).

    If all rows use the same adapter: its own `a` (r, in) and `b` (out, r), and a scalar `scaling`. The deltas are
    (rows, 1, out) or (out,), and None if no row has one.
    """

    a: Tensor
    b: Tensor
    scaling: Tensor
    magnitude_delta: Tensor | None = None
    bias_delta: Tensor | None = None

    def change(self, module: Any, inputs: Sequence[Tensor], y: Tensor) -> Tensor:
        return self.add_to(y, inputs[0], module.bias)

    def add_to(self, y: Tensor, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """`y` (rows, tokens, out) plus each row's LoRA update from `x` (rows, tokens, in).

        Some models (OPT, the shared experts of Qwen2-MoE) flatten the rows: (rows * tokens, in).
        """
        x = x.to(self.a.dtype)
        if self.a.dim() == 2:
            update = functional.linear(functional.linear(x, self.a) * self.scaling, self.b)
        else:
            by_row = x.reshape(self.a.shape[0], -1, x.shape[-1])
            update = torch.bmm(torch.bmm(by_row, self.a) * self.scaling, self.b).view(y.shape)
        if self.magnitude_delta is not None or self.bias_delta is not None:
            update += self._dora_and_bias(y.to(update.dtype), bias)
        return y + update.to(y.dtype)

    def _dora_and_bias(self, y: Tensor, bias: Tensor | None) -> Tensor:
        """What DoRA and trained biases add, shaped like `y`. `bias`: the base layer's own."""
        product = y - bias if bias is not None else y
        if self.a.dim() == 3:
            product = product.reshape(self.a.shape[0], -1, y.shape[-1])
        scaled = product * self.magnitude_delta if self.magnitude_delta is not None else torch.zeros_like(product)
        return (scaled + self.bias_delta if self.bias_delta is not None else scaled).view(y.shape)


@dataclass(frozen=True)
class LoraAndOverride:
    """For a layer that has LoRA in some rows and is overridden in others."""

    stack: StackedLora
    override: RowOverrides

    def change(self, module: Any, inputs: Sequence[Tensor], y: Tensor) -> Tensor:
        return self.override.change(module, inputs, self.stack.change(module, inputs, y))


@dataclass
class ActiveAdapters:
    """The output changes of the batch that is running, by module name. The hooks read them; no entry: plain base."""

    changes: Mapping[str, OutputChange] = field(default_factory=dict)

    @contextmanager
    def using(self, changes: Mapping[str, OutputChange]) -> Iterator[None]:
        """Apply the changes in this block. Afterwards no adapter is kept alive here."""
        self.changes = changes
        try:
            yield
        finally:
            self.changes = {}


def add_adapter_hooks(model: nn.Module, head: nn.Module | None) -> tuple[ActiveAdapters, dict[str, Linear]]:
    """Hook every linear layer but the output head, and every leaf module, to apply the running batch's changes.

    The modules themselves stay as they are, quantised or not, because some models read their weights directly. Returns
    the object that selects the changes, and the linear layers by name.
    """
    active, linears = ActiveAdapters(), linear_layers(model, head)
    for name, module in (leaf_modules(model) | linears).items():
        module.register_forward_hook(_hook(name, active))
    return active, linears


def linear_layers(model: nn.Module, head: nn.Module | None) -> dict[str, Linear]:
    """Every linear layer but the output head, by its name."""
    kinds = (nn.Linear, Conv1D)  # GPT-2's linear layers are called Conv1D
    return {name: one for name, one in model.named_modules() if isinstance(one, kinds) and one is not head}


def in_out_features(linear: Linear) -> tuple[int, int]:
    """Input and output width."""
    return (linear.nx, linear.nf) if isinstance(linear, Conv1D) else (linear.in_features, linear.out_features)


def _hook(name: str, active: ActiveAdapters) -> Callable[[nn.Module, tuple[Any, ...], Tensor], Tensor | None]:
    def change(module: nn.Module, inputs: tuple[Any, ...], y: Tensor) -> Tensor | None:
        found = active.changes.get(name)
        return None if found is None else found.change(module, inputs, y)

    return change


def stack_adapters(adapters: Sequence[LoraWeights | None]) -> dict[str, OutputChange]:
    """The output changes by module name, for a batch whose row i uses `adapters[i]`; None is the base model."""
    first = adapters[0]
    names = {name: None for one in adapters if one is not None for name in one}
    same_adapter = first is not None and all(one is first for one in adapters)
    return {
        name: _change([one.get(name) if one is not None else None for one in adapters], same_adapter=same_adapter)
        for name in names
    }


def _change(parts: Sequence[LoraPair | Override | None], *, same_adapter: bool) -> OutputChange:
    pairs = [part if isinstance(part, LoraPair) else None for part in parts]
    overrides = [None if isinstance(part, LoraPair) else part for part in parts]
    if not any(pairs):
        return row_overrides(overrides)
    stack = _single(pair) if same_adapter and (pair := pairs[0]) is not None else _stack(pairs)
    return LoraAndOverride(stack, row_overrides(overrides)) if any(overrides) else stack


def _single(pair: LoraPair) -> StackedLora:
    return StackedLora(pair.a, pair.b, pair.a.new_tensor(pair.scaling), pair.magnitude_delta, pair.bias_delta)


def _stack(pairs: Sequence[LoraPair | None]) -> StackedLora:
    """Pad all ranks with zeros to the largest. Rows of the base model are all zeros."""
    present = [pair for pair in pairs if pair is not None]
    rank = max(pair.a.shape[0] for pair in present)
    like = present[0]
    a = like.a.new_zeros(len(pairs), like.a.shape[1], rank)
    b = like.b.new_zeros(len(pairs), rank, like.b.shape[0])
    for row, pair in enumerate(pairs):
        if pair is not None:
            a[row, :, : pair.a.shape[0]] = pair.a.T
            b[row, : pair.b.shape[1]] = pair.b.T
    scaling = a.new_tensor([pair.scaling if pair else 0.0 for pair in pairs])
    magnitude_delta = _one_per_row([pair.magnitude_delta if pair else None for pair in pairs])
    bias_delta = _one_per_row([pair.bias_delta if pair else None for pair in pairs])
    return StackedLora(a, b, scaling.view(-1, 1, 1), magnitude_delta, bias_delta)


def _one_per_row(values: Sequence[Tensor | None]) -> Tensor | None:
    """(rows, 1, out), zeros for rows without one; None if no row has one."""
    like = next((value for value in values if value is not None), None)
    if like is None:
        return None
    return torch.stack([torch.zeros_like(like) if value is None else value for value in values]).unsqueeze(1)
