"""Attention by plain products equals torch's own: values, gradients, shared keys, and padding that nobody looks at."""

import pytest
import torch
from torch import Tensor, nn

from trainer.short_attention import MAX_LENGTH, _attend


def make_heads(length: int, *, heads: int = 4, kv_heads: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(length)
    shapes = [(3, count, length, 16) for count in (heads, kv_heads, kv_heads)]
    made = [torch.randn(shape, generator=generator).requires_grad_() for shape in shapes]
    return made[0], made[1], made[2]


def reference(query: Tensor, key: Tensor, value: Tensor, scale: float | None) -> Tensor:
    found = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True, scale=scale, enable_gqa=True)
    return found.transpose(1, 2)


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("length", [2, 37, MAX_LENGTH])
@pytest.mark.parametrize("scale", [None, 0.5])
def test_values_and_gradients_are_torchs(length: int, kv_heads: int, scale: float | None) -> None:
    heads = make_heads(length, kv_heads=kv_heads)
    expected = reference(*heads, scale)
    found, _ = _attend(nn.Module(), *heads, None, scaling=scale)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    grad_out = torch.randn_like(expected)
    for ours, theirs in zip(
        torch.autograd.grad(found, heads, grad_out), torch.autograd.grad(expected, heads, grad_out), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_what_stands_to_the_right_changes_nothing() -> None:
    query, key, value = make_heads(20)
    whole, _ = _attend(nn.Module(), query, key, value, None)
    cut, _ = _attend(nn.Module(), query[:, :, :7], key[:, :, :7], value[:, :, :7], None)
    torch.testing.assert_close(whole[:, :7], cut, rtol=1e-5, atol=1e-6)


def test_everything_else_goes_to_torch() -> None:
    """Longer rows, a mask, one new token beside cached ones."""
    module = nn.Module()
    module.num_key_value_groups = 2
    long = make_heads(MAX_LENGTH + 1)
    torch.testing.assert_close(_attend(module, *long, None)[0], reference(*long, None), rtol=1e-4, atol=1e-5)
    query, key, value = make_heads(9)
    newest, _ = _attend(module, query[:, :, -1:], key, value, None)
    torch.testing.assert_close(newest, reference(query, key, value, None)[:, -1:], rtol=1e-4, atol=1e-5)
    near = torch.ones(9, 9, dtype=torch.bool).tril().triu(-2)  # a sliding window of three
    masked, _ = _attend(module, query, key, value, near[None, None])
    expected = nn.functional.scaled_dot_product_attention(query, key, value, near, enable_gqa=True).transpose(1, 2)
    torch.testing.assert_close(masked, expected, rtol=1e-4, atol=1e-5)


def test_what_neither_kernel_knows_is_refused() -> None:
    query, key, value = make_heads(9)
    with pytest.raises(NotImplementedError, match="s_aux"):
        _attend(nn.Module(), query, key, value, None, s_aux=torch.zeros(4))
