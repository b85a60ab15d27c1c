"""Causal attention by plain matrix products, for short rows on a CPU, and for rows that stand in one line."""

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.bias import causal_lower_right
from torch.utils.checkpoint import checkpoint
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from trainer.prefixes import Segment, Span, spans

NAME = "lowrank_short"
SEGMENTS = "segments_in_line"  # the keyword by which attention hears of them
BEYOND_PRODUCTS = ("s_aux", "softcap", "position_bias")  # what some families add, and neither kernel here knows
LONGEST = 1024  # measured: half of the fused kernel's time at 200 and at 1,000 tokens; longer rows would keep too much
BLOCK = 128  # queries at once: what they may not see to the right is not computed, beyond their own block

Place = tuple[int, Span]  # batch row, and where in it
Stretches = tuple[tuple[int, int], ...]


class _CausalProducts(torch.autograd.Function):
    """softmax(scale q k^T + mask) v for each span by itself, with the probabilities kept for the way back.

    q: (batch, heads, length, width); k, v: (batch, kv_heads, length, width) -> (batch, length, heads, width).
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, places: list[Place], scale: float) -> Tensor:
        batch, heads, length, width = q.shape
        found = q.new_empty(batch, length, heads, width)
        out, kept = _grouped(found.transpose(1, 2), k), []
        q = q * scale  # once, and not the scores, which are more
        queries = _grouped(q, k)
        for row, span in places:
            keys, values = _seen(k[row], span.seen), _seen(v[row], span.seen)
            for first, last, reach in _blocks(span):
                rows, before = queries[row, :, :, first:last].flatten(1, 2), reach - (last - first)
                scores = torch.bmm(rows, keys[:, :reach].transpose(1, 2))
                scores.view(-1, last - first, reach)[..., before:].add_(_mask(last - first, q.dtype))
                chances = torch.softmax(scores, dim=-1)
                kept.append(chances)
                here = out[row, :, :, first:last]
                here.copy_(torch.bmm(chances, values[:, :reach]).view_as(here))
        ctx.save_for_backward(q, k, v, *kept)
        ctx.places, ctx.scale = places, scale
        return found

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, Tensor, Tensor, None, None]:
        q, k, v, *kept = ctx.saved_tensors
        queries, slopes = _grouped(q, k), _grouped(gradients[0].transpose(1, 2), k)
        # What no span covers is padding, and has no gradient.
        of_q, of_k, of_v = (torch.zeros_like(one, memory_format=torch.contiguous_format) for one in (q, k, v))
        of_queries = _grouped(of_q, k)
        for row, span in ctx.places:
            keys, values = _seen(k[row], span.seen), _seen(v[row], span.seen)
            of_keys, of_values = _room(of_k[row], span.seen), _room(of_v[row], span.seen)
            for first, last, reach in _blocks(span):
                chances = kept.pop(0)
                rows, slope = (one[row, :, :, first:last].flatten(1, 2) for one in (queries, slopes))
                of_values[:, :reach] += torch.bmm(chances.transpose(1, 2), slope)
                of_scores = torch.bmm(slope, values[:, :reach].transpose(1, 2))
                of_scores = torch.ops.aten._softmax_backward_data(of_scores, chances, -1, chances.dtype)
                here = of_queries[row, :, :, first:last]
                here.copy_(torch.bmm(of_scores, keys[:, :reach]).view_as(here))
                of_keys[:, :reach] += torch.bmm(of_scores.transpose(1, 2), rows)
            _add(of_keys, of_k[row], span.seen)
            _add(of_values, of_v[row], span.seen)
        return of_q.mul_(ctx.scale), of_k, of_v, None, None


def _seen(line: Tensor, stretches: Stretches) -> Tensor:
    """Keys or values that a span sees, in order. line: (kv_heads, length, width); a view of it where they touch."""
    parts = [line[:, start:end] for start, end in stretches]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def _room(line: Tensor, stretches: Stretches) -> Tensor:
    """Where the gradient of what `_seen` gives is collected: in its place, or apart until `_add` brings it there."""
    return _seen(line, stretches) if len(stretches) == 1 else torch.zeros_like(_seen(line, stretches))


def _add(collected: Tensor, line: Tensor, stretches: Stretches) -> None:
    if len(stretches) > 1:
        parts = torch.split(collected, [end - start for start, end in stretches], dim=1)
        for part, (start, end) in zip(parts, stretches, strict=True):
            line[:, start:end] += part


def _grouped(heads: Tensor, k: Tensor) -> Tensor:
    """Query heads with the keys they share. (batch, heads, …) -> (batch, kv_heads, heads of a group, …), a view."""
    batch, count, *rest = heads.shape
    return heads.view(batch, k.shape[1], count // k.shape[1], *rest)


def _blocks(span: Span) -> list[tuple[int, int, int]]:
    """From where to where the queries of a block stand, and how many keys the last of them sees."""
    ends = [(first, min(span.last, first + BLOCK)) for first in range(span.first, span.last, BLOCK)]
    return [(first, last, span.before + last - span.first) for first, last in ends]


@lru_cache(maxsize=4)
def _whole_mask(dtype: torch.dtype) -> Tensor:
    return torch.full((BLOCK, BLOCK), float("-inf"), dtype=dtype).triu(1)


def _mask(length: int, dtype: torch.dtype) -> Tensor:
    return _whole_mask(dtype)[:length, :length]


def _attend(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """transformers' attention interface. With segments, rows stand in one line, and each sees itself alone.

    All but plain causal attention over short rows goes to torch's kernel.
    """
    segments: tuple[Segment, ...] = options.pop(SEGMENTS, ())
    if left_out := [name for name in BEYOND_PRODUCTS if options.get(name) is not None]:
        raise NotImplementedError(f"attention with {left_out[0]}")
    if segments:
        attention_mask = None  # what it would say is said by the segments
    plain = attention_mask is None and query.shape[2] == key.shape[2] and not options.get("dropout")
    causal = options.get("is_causal")
    causal = getattr(module, "is_causal", True) if causal is None else causal
    stretches = spans(segments or (Segment(query.shape[2]),))  # of each row
    longest = max(span.whole for span in stretches)
    alike = key.shape[-1] == value.shape[-1] == query.shape[-1]
    if plain and causal and alike and query.device.type == "cpu" and 1 < longest <= LONGEST:
        scaling = options.get("scaling")
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        places = [(row, span) for row in range(query.shape[0]) for span in stretches]
        return _CausalProducts.apply(query, key, value, places, scale), None  # type: ignore[no-untyped-call]
    if not segments:
        found: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **options)
        return found
    each = [_one_by_one(module, query, key, value, span, options) for span in stretches]
    return torch.cat(each, dim=1), None


def _one_by_one(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, span: Span, options: dict[str, Any]
) -> Tensor:
    """What torch's kernel gives for one span. -> (1, length of the span, heads, width)."""

    def attended(rows: Tensor, key: Tensor, value: Tensor) -> Tensor:
        k, v = (_seen(one[0], span.seen)[None] for one in (key, value))
        # Without a mask the kernel takes the first query for the first key's; a single one then sees all keys.
        mask = causal_lower_right(length, span.whole) if span.before and length > 1 else None
        found: Tensor = sdpa_attention_forward(module, rows, k, v, mask, **options)[0]
        return found

    rows, length = query[:, :, span.first : span.last], span.last - span.first
    if not (span.before and torch.is_grad_enabled()):
        return attended(rows, key, value)
    # What is put together for this span alone is not kept: many rows would each keep a copy of what they begin with.
    # Nothing in it is drawn at random (see `packing.is_random`), so there is no generator's state to put back.
    again: Tensor = checkpoint(attended, rows, key, value, use_reentrant=False, preserve_rng_state=False)
    return again


AttentionInterface.register(NAME, _attend)
AttentionMaskInterface.register(NAME, sdpa_mask)
