"""Linear layers whose every row of a batch uses its own adapter: the rows' A and B lie stacked, two products a layer.

The update is LoRA's, `y = W x + s B A x` (Hu et al. 2021, https://arxiv.org/abs/2106.09685, section 4.1). Rows of one
batch gather their own A and B once per composition of the batch, as in S-LoRA (Sheng et al. 2023,
https://arxiv.org/abs/2311.03285, section 5), so that eight adapters cost about what one costs.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from trainer.own_modules import Own, OwnPlaces, places_of, replaceable

Linear = nn.Linear | Conv1D


@dataclass(frozen=True)
class LoraPair:
    """One layer's part of an adapter: `a` of shape (r, in), `b` of shape (out, r), and the factor on their product.

    Beside it what else an adapter may change, both of shape (out,): `stretch` times the base's own product without its
    bias is added (DoRA), and so is `shift` (a bias that was learnt, less the base's own).
    """

    a: Tensor
    b: Tensor
    scaling: float
    stretch: Tensor | None = None
    shift: Tensor | None = None


LoraWeights = dict[str, LoraPair | Own]  # by the layer's name in the base model


class Change(Protocol):
    """What the rows of a batch do to what one module gives out."""

    def change(self, module: Any, given: Sequence[Tensor], y: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Stack:
    """One layer's parts for the rows of a batch: `a` (rows, in, r), `b` (rows, r, out), `scaling` (rows, 1, 1).

    When all rows use one adapter: its own `a` (r, in) and `b` (out, r), and `scaling` without a dimension. `stretch`
    and `shift` are (rows, 1, out) or (out,), and None where no row has one.
    """

    a: Tensor
    b: Tensor
    scaling: Tensor
    stretch: Tensor | None = None
    shift: Tensor | None = None

    def change(self, module: Any, given: Sequence[Tensor], y: Tensor) -> Tensor:
        return self.add_to(y, given[0], module.bias)

    def add_to(self, y: Tensor, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """`y` of shape (rows, tokens, out) plus each row's update of `x` of shape (rows, tokens, in).

        Some models (OPT, the shared experts of Qwen2-MoE) lay the rows end to end: (rows * tokens, in).
        """
        x = x.to(self.a.dtype)
        if self.a.dim() == 2:
            update = functional.linear(functional.linear(x, self.a) * self.scaling, self.b)
        else:
            by_row = x.reshape(self.a.shape[0], -1, x.shape[-1])
            update = torch.bmm(torch.bmm(by_row, self.a) * self.scaling, self.b).view(y.shape)
        if self.stretch is not None or self.shift is not None:
            update += self._moved(y.to(update.dtype), bias)
        return y + update.to(y.dtype)

    def _moved(self, y: Tensor, bias: Tensor | None) -> Tensor:
        """What DoRA and learnt biases add, of the shape of `y`; `bias` is the base layer's own."""
        product = y - bias if bias is not None else y
        if self.a.dim() == 3:
            product = product.reshape(self.a.shape[0], -1, y.shape[-1])
        stretched = product * self.stretch if self.stretch is not None else torch.zeros_like(product)
        return (stretched + self.shift if self.shift is not None else stretched).view(y.shape)


@dataclass(frozen=True)
class Both:
    """For a layer that gets an update in some rows and is another one in others."""

    stack: Stack
    own: OwnPlaces

    def change(self, module: Any, given: Sequence[Tensor], y: Tensor) -> Tensor:
        return self.own.change(module, given, self.stack.change(module, given, y))


@dataclass
class Rows:
    """What the modules of one model look at: the changes of the batch that runs now. Modules without one: base."""

    stacks: Mapping[str, Change] = field(default_factory=dict)

    @contextmanager
    def using(self, stacks: Mapping[str, Change]) -> Iterator[None]:
        """Let a batch run; afterwards nothing here keeps its adapters in memory."""
        self.stacks = stacks
        try:
            yield
        finally:
            self.stacks = {}


def adapt(model: nn.Module, head: nn.Module | None) -> tuple[Rows, dict[str, Linear]]:
    """Let every linear layer of `model` but its output head add the running batch's update to what it gives out.

    Any module with weights of its own can be another one in some rows. The modules stay what they are, quantised or
    not: some models read their weights. Returns what steers them, and the linear layers by name.
    """
    rows, linears = Rows(), linear_layers(model, head)
    for name, module in (replaceable(model) | linears).items():
        module.register_forward_hook(_changer(name, rows))
    return rows, linears


def linear_layers(model: nn.Module, head: nn.Module | None) -> dict[str, Linear]:
    """Every linear layer but the output head, by its name."""
    kinds = (nn.Linear, Conv1D)  # GPT-2's linear layers are called Conv1D
    return {name: one for name, one in model.named_modules() if isinstance(one, kinds) and one is not head}


def size_of(linear: Linear) -> tuple[int, int]:
    """How many values go in and come out."""
    return (linear.nx, linear.nf) if isinstance(linear, Conv1D) else (linear.in_features, linear.out_features)


def _changer(name: str, rows: Rows) -> Callable[[nn.Module, tuple[Any, ...], Tensor], Tensor | None]:
    def change(module: nn.Module, given: tuple[Any, ...], y: Tensor) -> Tensor | None:
        found = rows.stacks.get(name)
        return None if found is None else found.change(module, given, y)

    return change


def stack_rows(adapters: Sequence[LoraWeights | None]) -> dict[str, Change]:
    """What changes in a batch whose row i uses `adapters[i]`, None for the base model, by the module's name."""
    first = adapters[0]
    names = {name: None for one in adapters if one is not None for name in one}
    alike = first is not None and all(one is first for one in adapters)
    return {
        name: _change([one.get(name) if one is not None else None for one in adapters], alike=alike) for name in names
    }


def _change(parts: Sequence[LoraPair | Own | None], *, alike: bool) -> Change:
    pairs = [part if isinstance(part, LoraPair) else None for part in parts]
    owns = [None if isinstance(part, LoraPair) else part for part in parts]
    if not any(pairs):
        return places_of(owns)
    stack = _shared(pair) if alike and (pair := pairs[0]) is not None else _stacked(pairs)
    return Both(stack, places_of(owns)) if any(owns) else stack


def _shared(pair: LoraPair) -> Stack:
    return Stack(pair.a, pair.b, pair.a.new_tensor(pair.scaling), pair.stretch, pair.shift)


def _stacked(pairs: Sequence[LoraPair | None]) -> Stack:
    """Ranks are padded with zeros to the largest; a row of the base model is all zeros."""
    there = [pair for pair in pairs if pair is not None]
    rank = max(pair.a.shape[0] for pair in there)
    like = there[0]
    a = like.a.new_zeros(len(pairs), like.a.shape[1], rank)
    b = like.b.new_zeros(len(pairs), rank, like.b.shape[0])
    for row, pair in enumerate(pairs):
        if pair is not None:
            a[row, :, : pair.a.shape[0]] = pair.a.T
            b[row, : pair.b.shape[1]] = pair.b.T
    scaling = a.new_tensor([pair.scaling if pair else 0.0 for pair in pairs])
    stretch = _one_per_row([pair.stretch if pair else None for pair in pairs])
    shift = _one_per_row([pair.shift if pair else None for pair in pairs])
    return Stack(a, b, scaling.view(-1, 1, 1), stretch, shift)


def _one_per_row(values: Sequence[Tensor | None]) -> Tensor | None:
    """(rows, 1, out), zeros where a row has none; None when none has one."""
    like = next((value for value in values if value is not None), None)
    if like is None:
        return None
    return torch.stack([torch.zeros_like(like) if value is None else value for value in values]).unsqueeze(1)
