"""Stacked updates: each row gets its own W x + s B A x, whatever its neighbours have."""

import torch
from torch import nn

from trainer.stacked_lora import LoraPair, LoraWeights, add_adapter_hooks, in_out_features, stack_adapters

IN, OUT = 6, 5


def make_pair(r: int, seed: int) -> LoraPair:
    random = torch.Generator().manual_seed(seed)
    return LoraPair(torch.randn(r, IN, generator=random), torch.randn(OUT, r, generator=random), scaling=0.5 + seed)


def by_hand(linear: nn.Linear, pair: LoraPair | None, x: torch.Tensor) -> torch.Tensor:
    update = pair.scaling * pair.b @ pair.a if pair else torch.zeros(OUT, IN)
    return x @ (linear.weight + update).T + linear.bias


class Flat(nn.Module):
    """Lays rows and tokens end to end before its linear layer, as OPT and Qwen2-MoE do."""

    def __init__(self, one: nn.Linear) -> None:
        super().__init__()
        self.one = one

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.one(x.view(-1, IN))
        assert y.dim() == 2
        return y.view(*x.shape[:-1], OUT)


def check(weights: list[LoraWeights | None]) -> None:
    linear = nn.Linear(IN, OUT).requires_grad_(requires_grad=False)
    flat = Flat(linear)
    rows, _ = add_adapter_hooks(flat, None)
    x = torch.randn(len(weights), 3, IN)
    with rows.using(stack_adapters(weights)):
        for found in (linear(x), flat(x)):
            for row, adapter in enumerate(weights):
                pair = adapter.get("one") if adapter else None
                torch.testing.assert_close(found[row], by_hand(linear, pair, x[row]), atol=1e-5, rtol=1e-5)


def test_each_row_has_its_own_adapter_and_rank() -> None:
    check([{"one": make_pair(2, 1)}, None, {"one": make_pair(4, 2)}, {"other": make_pair(3, 3)}])


def test_one_adapter_for_all_rows_needs_no_stack() -> None:
    shared = {"one": make_pair(2, 1)}
    check([shared, shared])
    assert stack_adapters([shared, shared])["one"].a.dim() == 2
    assert stack_adapters([shared, dict(shared)])["one"].a.dim() == 3


def test_layers_without_an_adapter_are_left_alone() -> None:
    assert stack_adapters([None, None]) == {}
    assert set(stack_adapters([None, {"one": make_pair(2, 1)}])) == {"one"}


def test_the_head_is_spared_and_layers_stay_what_they_are() -> None:
    model = nn.Sequential()
    model.add_module("inner", nn.Sequential(nn.Linear(IN, OUT), nn.ReLU()))
    model.add_module("head", nn.Linear(OUT, 3))
    x = torch.randn(2, 3, IN)
    before = model(x)
    kinds = [type(one) for one in model.modules()]
    rows, layers = add_adapter_hooks(model, model.get_submodule("head"))
    assert {name: in_out_features(one) for name, one in layers.items()} == {"inner.0": (IN, OUT)}
    assert [type(one) for one in model.modules()] == kinds
    torch.testing.assert_close(model(x), before)
    with rows.using(stack_adapters([{"inner.0": make_pair(2, 1)}] * 2)):
        assert not torch.allclose(model(x), before)
    torch.testing.assert_close(model(x), before)
