"""Causal attention for short rows on a CPU, by plain matrix products: torch's fused kernel is slower there."""

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "lowrank_short"
BEYOND_PRODUCTS = ("s_aux", "softcap", "position_bias")  # what some families add, and neither kernel here knows
LONGEST = 512  # measured: a quarter of the fused kernel's time at 128 tokens, 0.6 at 512, 1.1 at 700


class _CausalProducts(torch.autograd.Function):
    """softmax(q k^T + mask) v with the probabilities kept for the way back.

    q: (batch, heads, length, width), already scaled; k, v: (batch, kv_heads, length, width).
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        batch, heads, length, width = q.shape
        groups = batch * k.shape[1]  # query heads that share keys lie one below the other
        rows, keys, values = (
            q.reshape(groups, -1, width),
            k.reshape(groups, length, width),
            v.reshape(groups, length, width),
        )
        scores = torch.bmm(rows, keys.transpose(1, 2))
        scores.view(groups, -1, length, length).add_(_causal_mask(length, q.dtype))
        chances = torch.softmax(scores, dim=-1)
        ctx.save_for_backward(rows, keys, values, chances)
        return torch.bmm(chances, values).view(batch, heads, length, width)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, Tensor, Tensor]:
        rows, keys, values, chances = ctx.saved_tensors
        batch, heads, length, width = gradients[0].shape
        gradient = gradients[0].reshape(rows.shape)
        of_values = torch.bmm(chances.transpose(1, 2), gradient)
        slope = torch.bmm(gradient, values.transpose(1, 2))
        slope = torch.ops.aten._softmax_backward_data(slope, chances, -1, chances.dtype)
        of_rows = torch.bmm(slope, keys).view(batch, heads, length, width)
        of_keys = torch.bmm(slope.transpose(1, 2), rows)
        shape = (batch, -1, length, width)
        return of_rows, of_keys.view(shape), of_values.view(shape)


@lru_cache(maxsize=4)
def _whole_mask(dtype: torch.dtype) -> Tensor:
    allowed = torch.ones(LONGEST, LONGEST, dtype=torch.bool).tril()
    return torch.zeros(LONGEST, LONGEST, dtype=dtype).masked_fill(~allowed, float("-inf"))


def _causal_mask(length: int, dtype: torch.dtype) -> Tensor:
    return _whole_mask(dtype)[:length, :length]


def _attend(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """transformers' attention interface. All but plain causal attention over short rows goes to torch's kernel."""
    if left_out := [name for name in BEYOND_PRODUCTS if options.get(name) is not None]:
        raise NotImplementedError(f"attention with {left_out[0]}")
    plain = attention_mask is None and query.shape[2] == key.shape[2] and not options.get("dropout")
    causal = options.get("is_causal")
    causal = getattr(module, "is_causal", True) if causal is None else causal
    if not (plain and causal and 1 < query.shape[2] <= LONGEST and key.shape[-1] == value.shape[-1] == query.shape[-1]):
        found: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **options)
        return found
    scaling = options.get("scaling")
    scaled = query * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    return _CausalProducts.apply(scaled, key, value).transpose(1, 2).contiguous(), None  # type: ignore[no-untyped-call]


AttentionInterface.register(NAME, _attend)
AttentionMaskInterface.register(NAME, sdpa_mask)
