"""Modules that an adapter has of its own beside its updates, for those rows of a batch that use it: whole ones
(`modules_to_save`), rows of the embeddings (`trainable_token_indices`), and biases of layers without an update."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from bitsandbytes.nn.modules import Linear4bit, Linear8bitLt
from torch import Tensor, nn


class Own(Protocol):
    """What an adapter has in place of a module of the base."""

    def put(self, y: Tensor, *given: Tensor) -> Tensor:
        """What comes out for these rows, where the base's module gives `y` for what is given."""


@dataclass(frozen=True)
class OwnModule:
    """All of it: the base's has no part in what comes out."""

    module: nn.Module

    def put(self, y: Tensor, *given: Tensor) -> Tensor:
        return _run(self.module, *given).to(y.dtype)


@dataclass(frozen=True)
class OwnRows:
    """Some tokens' rows of the embeddings. `place`: (vocabulary,) -> which row of `module`, -1 for the base's own."""

    module: nn.Module
    place: Tensor

    def put(self, y: Tensor, *given: Tensor) -> Tensor:
        place = self.place[given[0]]
        made = y.clone()
        made[place >= 0] = _run(self.module, place[place >= 0]).to(y.dtype)
        return made


@dataclass(frozen=True)
class OwnScores:
    """The same rows in a head that is tied to the embeddings. `tokens`: which scores they make."""

    module: nn.Module
    tokens: Tensor

    def put(self, y: Tensor, *given: Tensor) -> Tensor:
        return y.index_copy(-1, self.tokens, _run(self.module, *given).to(y.dtype))


@dataclass(frozen=True)
class OwnPlaces:
    """One module's own forms in a batch of `rows`, each with the rows that use it; None: all of them."""

    rows: int
    parts: tuple[tuple[Own, Tensor | None], ...]

    def change(self, module: nn.Module, given: Sequence[Tensor], y: Tensor) -> Tensor:
        """Some models lay the rows end to end: (rows * tokens, values)."""
        laid = [self._by_row(one) for one in given]
        made = self._by_row(y)
        for own, rows in self.parts:
            if rows is None:
                made = own.put(made, *laid)
            else:
                made = made.index_copy(0, rows, own.put(made[rows], *(one[rows] for one in laid)))
        return made.reshape(y.shape)

    def _by_row(self, values: Tensor) -> Tensor:
        return values if values.shape[0] == self.rows else values.reshape(self.rows, -1, *values.shape[1:])


def places_of(owns: Sequence[Own | None]) -> OwnPlaces:
    """For a batch whose row i has `owns[i]` in place of a module, None for the base's."""
    distinct = {id(own): own for own in owns if own is not None}
    if len(distinct) == 1 and None not in owns:
        return OwnPlaces(len(owns), tuple((own, None) for own in distinct.values()))
    rows = {key: torch.tensor([at for at, own in enumerate(owns) if id(own) == key]) for key in distinct}
    return OwnPlaces(len(owns), tuple((own, rows[key].to(_device(own))) for key, own in distinct.items()))


def replaceable(model: nn.Module) -> dict[str, nn.Module]:
    """The modules that compute with weights of their own and nothing below them, by name."""
    return {
        name: one
        for name, one in model.named_modules()
        if not any(True for _ in one.children()) and any(True for _ in one.parameters(recurse=False))
    }


def own_copy(module: nn.Module, values: Mapping[str, Tensor]) -> nn.Module:
    """The same kind of module with these weights, sharing all others with the base's."""
    packed = isinstance(module, (Linear4bit, Linear8bitLt))
    own: Any = copy.copy(module)
    if packed and "weight" in values:  # what learns whole is never packed
        own = nn.Linear(own.in_features, own.out_features, bias="bias" in values, device="meta")
    own._parameters = own._parameters | {
        name: nn.Parameter(value, requires_grad=False) for name, value in values.items()
    }
    return own  # type: ignore[no-any-return]


def own_rows(embeddings: nn.Module, values: Tensor, tokens: Sequence[int]) -> OwnRows:
    """values: (tokens, hidden). A family's own scaling of its embeddings stays."""
    own: Any = own_copy(embeddings, {"weight": values})
    own.padding_idx = None
    place = torch.full((int(own.num_embeddings),), -1, device=values.device)
    place[list(tokens)] = torch.arange(len(tokens), device=values.device)
    return OwnRows(own, place)


def own_scores(values: Tensor, tokens: Sequence[int]) -> OwnScores:
    own = nn.Linear(values.shape[1], len(tokens), bias=False, device="meta")
    own.weight = nn.Parameter(values, requires_grad=False)
    return OwnScores(own, torch.tensor(tokens, device=values.device))


def _run(module: nn.Module, *given: Tensor) -> Tensor:
    """Its computation alone: hooks are for the base's module."""
    forward: Callable[..., Tensor] = type(module).forward
    return forward(module, *given)


def _device(own: Own) -> torch.device:
    module: Any = own.module  # type: ignore[attr-defined]
    found: torch.device = next(module.parameters()).device
    return found
