"""Causal attention by plain matrix products, for short rows on a CPU, and for rows that stand in one line."""

from functools import lru_cache
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "lowrank_short"
LENGTHS = "lengths_in_line"  # the keyword by which attention hears of them
BEYOND_PRODUCTS = ("s_aux", "softcap", "position_bias")  # what some families add, and neither kernel here knows
LONGEST = 1024  # measured: half of the fused kernel's time at 200 and at 1,000 tokens; longer rows would keep too much
BLOCK = 128  # queries at once: what they may not see to the right is not computed, beyond their own block

Span = tuple[int, int, int]  # batch row, and from where to where its tokens stand


class _CausalProducts(torch.autograd.Function):
    """softmax(scale q k^T + mask) v for each span by itself, with the probabilities kept for the way back.

    q: (batch, heads, length, width); k, v: (batch, kv_heads, length, width) -> (batch, length, heads, width).
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, spans: list[Span], scale: float) -> Tensor:
        batch, heads, length, width = q.shape
        found = q.new_empty(batch, length, heads, width)
        out, kept = _grouped(found.transpose(1, 2), k), []
        queries = _grouped(q, k)
        for row, start, end in spans:
            for first, last in _blocks(start, end):
                rows, keys = queries[row, :, :, first:last].flatten(1, 2), k[row, :, start:last]
                scores = torch.bmm(rows, keys.transpose(1, 2)).mul_(scale)
                scores.view(-1, last - first, last - start)[..., first - start :].add_(_mask(last - first, q.dtype))
                chances = torch.softmax(scores, dim=-1)
                kept.append(chances)
                here = out[row, :, :, first:last]
                here.copy_(torch.bmm(chances, v[row, :, start:last]).view_as(here))
        ctx.save_for_backward(q, k, v, *kept)
        ctx.spans, ctx.scale = spans, scale
        return found

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, Tensor, Tensor, None, None]:
        q, k, v, *kept = ctx.saved_tensors
        queries, slopes = _grouped(q, k), _grouped(gradients[0].transpose(1, 2), k)
        # What no span covers is padding, and has no gradient.
        of_q, of_k, of_v = (torch.zeros_like(one, memory_format=torch.contiguous_format) for one in (q, k, v))
        of_queries = _grouped(of_q, k)
        for row, start, end in ctx.spans:
            for first, last in _blocks(start, end):
                chances = kept.pop(0)
                rows, slope = (one[row, :, :, first:last].flatten(1, 2) for one in (queries, slopes))
                keys, values = k[row, :, start:last], v[row, :, start:last]
                of_v[row, :, start:last] += torch.bmm(chances.transpose(1, 2), slope)
                of_scores = torch.bmm(slope, values.transpose(1, 2))
                of_scores = torch.ops.aten._softmax_backward_data(of_scores, chances, -1, chances.dtype)
                of_scores *= ctx.scale
                here = of_queries[row, :, :, first:last]
                here.copy_(torch.bmm(of_scores, keys).view_as(here))
                of_k[row, :, start:last] += torch.bmm(of_scores.transpose(1, 2), rows)
        return of_q, of_k, of_v, None, None


def _grouped(heads: Tensor, k: Tensor) -> Tensor:
    """Query heads with the keys they share. (batch, heads, …) -> (batch, kv_heads, heads of a group, …), a view."""
    batch, count, *rest = heads.shape
    return heads.view(batch, k.shape[1], count // k.shape[1], *rest)


def _blocks(start: int, end: int) -> list[tuple[int, int]]:
    return [(first, min(end, first + BLOCK)) for first in range(start, end, BLOCK)]


@lru_cache(maxsize=4)
def _whole_mask(dtype: torch.dtype) -> Tensor:
    return torch.full((BLOCK, BLOCK), float("-inf"), dtype=dtype).triu(1)


def _mask(length: int, dtype: torch.dtype) -> Tensor:
    return _whole_mask(dtype)[:length, :length]


def _attend(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """transformers' attention interface. With lengths, rows stand in one line, and none sees another.

    All but plain causal attention over short rows goes to torch's kernel.
    """
    lengths = options.pop(LENGTHS, ())
    if left_out := [name for name in BEYOND_PRODUCTS if options.get(name) is not None]:
        raise NotImplementedError(f"attention with {left_out[0]}")
    if lengths:
        attention_mask = None  # what it would say is said by the lengths
    plain = attention_mask is None and query.shape[2] == key.shape[2] and not options.get("dropout")
    causal = options.get("is_causal")
    causal = getattr(module, "is_causal", True) if causal is None else causal
    longest = max(lengths, default=query.shape[2])
    alike = key.shape[-1] == value.shape[-1] == query.shape[-1]
    if plain and causal and alike and query.device.type == "cpu" and 1 < longest <= LONGEST:
        scaling = options.get("scaling")
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        spans = _spans(query, lengths)
        return _CausalProducts.apply(query, key, value, spans, scale), None  # type: ignore[no-untyped-call]
    if not lengths:
        found: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **options)
        return found
    parts = zip(*(torch.split(one, list(lengths), dim=2) for one in (query, key, value)), strict=True)
    each = [sdpa_attention_forward(module, q, k, v, None, **options)[0] for q, k, v in parts]
    return torch.cat(each, dim=1), None


def _spans(query: Tensor, lengths: tuple[int, ...]) -> list[Span]:
    if not lengths:
        return [(row, 0, query.shape[2]) for row in range(query.shape[0])]
    return [(0, start, end) for start, end in pairwise(accumulate(lengths, initial=0))]


AttentionInterface.register(NAME, _attend)
AttentionMaskInterface.register(NAME, sdpa_mask)
