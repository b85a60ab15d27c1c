"""Stacked updates: each row gets its own W x + s B A x, whatever its neighbours have."""

import torch
from torch import nn

from trainer.stacked_lora import AdaptedLinear, LoraPair, LoraWeights, Rows, stack_rows, wrap

IN, OUT = 6, 5


def make_pair(r: int, seed: int) -> LoraPair:
    random = torch.Generator().manual_seed(seed)
    return LoraPair(torch.randn(r, IN, generator=random), torch.randn(OUT, r, generator=random), scaling=0.5 + seed)


def by_hand(linear: nn.Linear, pair: LoraPair | None, x: torch.Tensor) -> torch.Tensor:
    update = pair.scaling * pair.b @ pair.a if pair else torch.zeros(OUT, IN)
    return x @ (linear.weight + update).T + linear.bias


def check(weights: list[LoraWeights | None]) -> None:
    linear = nn.Linear(IN, OUT).requires_grad_(requires_grad=False)
    layer = AdaptedLinear(linear, "one", Rows(stack_rows(weights)))
    x = torch.randn(len(weights), 3, IN)
    for row, adapter in enumerate(weights):
        pair = adapter.get("one") if adapter else None
        torch.testing.assert_close(layer(x)[row], by_hand(linear, pair, x[row]), atol=1e-5, rtol=1e-5)


def test_each_row_has_its_own_adapter_and_rank() -> None:
    check([{"one": make_pair(2, 1)}, None, {"one": make_pair(4, 2)}, {"other": make_pair(3, 3)}])


def test_one_adapter_for_all_rows_needs_no_stack() -> None:
    shared = {"one": make_pair(2, 1)}
    check([shared, shared])
    assert stack_rows([shared, shared])["one"].a.dim() == 2
    assert stack_rows([shared, dict(shared)])["one"].a.dim() == 3


def test_layers_without_an_adapter_are_left_alone() -> None:
    assert stack_rows([None, None]) == {}
    assert set(stack_rows([None, {"one": make_pair(2, 1)}])) == {"one"}


def test_wrap_spares_the_head() -> None:
    model = nn.Sequential()
    model.add_module("inner", nn.Sequential(nn.Linear(IN, OUT), nn.ReLU()))
    model.add_module("head", nn.Linear(OUT, 3))
    x = torch.randn(2, 3, IN)
    before = model(x)
    _, layers = wrap(model, model.get_submodule("head"))
    assert layers == {"inner.0": (IN, OUT)}
    assert isinstance(model.get_submodule("inner.0"), AdaptedLinear)
    torch.testing.assert_close(model(x), before)
