"""Causal attention by plain matrix products, for short rows on a CPU and for packed rows that may share prefixes."""

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
SEGMENTS = "packed_segments"  # keyword argument that carries the segments of a packed batch to the attention layers
UNSUPPORTED = ("s_aux", "softcap", "position_bias")  # extras of some families that neither kernel here implements
MAX_LENGTH = 1024  # measured: half the fused kernel's time at 200 and at 1,000 tokens; longer rows would save too much
BLOCK = 128  # queries at a time: keys to the right of a block are never computed

RowSpan = tuple[int, Span]  # batch row, and the span within it
Ranges = tuple[tuple[int, int], ...]


class _CausalProducts(torch.autograd.Function):
    """softmax(scale q k^T + mask) v for each span separately; the probabilities are saved for the backward pass.

    q: (batch, heads, length, width); k, v: (batch, kv_heads, length, width) -> (batch, length, heads, width).
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, row_spans: list[RowSpan], scale: float) -> Tensor:
        batch, heads, length, width = q.shape
        out = q.new_empty(batch, length, heads, width)
        grouped_out, saved = _grouped(out.transpose(1, 2), k), []
        q = q * scale  # rather than the scores, of which there are more
        queries = _grouped(q, k)
        for row, span in row_spans:
            keys, values = _gather(k[row], span.visible), _gather(v[row], span.visible)
            for start, end, reach in _blocks(span):
                block_q, before = queries[row, :, :, start:end].flatten(1, 2), reach - (end - start)
                scores = torch.bmm(block_q, keys[:, :reach].transpose(1, 2))
                scores.view(-1, end - start, reach)[..., before:].add_(_mask(end - start, q.dtype))
                probs = torch.softmax(scores, dim=-1)
                saved.append(probs)
                block_out = grouped_out[row, :, :, start:end]
                block_out.copy_(torch.bmm(probs, values[:, :reach]).view_as(block_out))
        ctx.save_for_backward(q, k, v, *saved)
        ctx.row_spans, ctx.scale = row_spans, scale
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, Tensor, Tensor, None, None]:
        q, k, v, *saved = ctx.saved_tensors
        queries, grad_out = _grouped(q, k), _grouped(gradients[0].transpose(1, 2), k)
        # Tokens outside every span are padding; their gradient is zero.
        grad_q, grad_k, grad_v = (torch.zeros_like(one, memory_format=torch.contiguous_format) for one in (q, k, v))
        grad_queries = _grouped(grad_q, k)
        for row, span in ctx.row_spans:
            keys, values = _gather(k[row], span.visible), _gather(v[row], span.visible)
            grad_keys, grad_values = _grad_buffer(grad_k[row], span.visible), _grad_buffer(grad_v[row], span.visible)
            for start, end, reach in _blocks(span):
                probs = saved.pop(0)
                block_q, block_grad = (one[row, :, :, start:end].flatten(1, 2) for one in (queries, grad_out))
                grad_values[:, :reach] += torch.bmm(probs.transpose(1, 2), block_grad)
                grad_scores = torch.bmm(block_grad, values[:, :reach].transpose(1, 2))
                grad_scores = torch.ops.aten._softmax_backward_data(grad_scores, probs, -1, probs.dtype)
                block_grad_q = grad_queries[row, :, :, start:end]
                block_grad_q.copy_(torch.bmm(grad_scores, keys[:, :reach]).view_as(block_grad_q))
                grad_keys[:, :reach] += torch.bmm(grad_scores.transpose(1, 2), block_q)
            _scatter_add(grad_keys, grad_k[row], span.visible)
            _scatter_add(grad_values, grad_v[row], span.visible)
        return grad_q.mul_(ctx.scale), grad_k, grad_v, None, None


def _gather(sequence: Tensor, ranges: Ranges) -> Tensor:
    """The keys or values in these ranges, in order. sequence: (kv_heads, length, width). A view if one range."""
    parts = [sequence[:, start:end] for start, end in ranges]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def _grad_buffer(sequence: Tensor, ranges: Ranges) -> Tensor:
    """Where the gradient of `_gather`'s result accumulates: in place if one range, else apart, for `_scatter_add`."""
    return _gather(sequence, ranges) if len(ranges) == 1 else torch.zeros_like(_gather(sequence, ranges))


def _scatter_add(gathered: Tensor, sequence: Tensor, ranges: Ranges) -> None:
    if len(ranges) > 1:
        parts = torch.split(gathered, [end - start for start, end in ranges], dim=1)
        for part, (start, end) in zip(parts, ranges, strict=True):
            sequence[:, start:end] += part


def _grouped(heads: Tensor, k: Tensor) -> Tensor:
    """Query heads grouped by the KV head they share. (batch, heads, …) -> (batch, kv_heads, group size, …), a view."""
    batch, count, *rest = heads.shape
    return heads.view(batch, k.shape[1], count // k.shape[1], *rest)


def _blocks(span: Span) -> list[tuple[int, int, int]]:
    """Start and end of each block of queries, and the number of keys that its last query sees."""
    edges = [(start, min(span.end, start + BLOCK)) for start in range(span.start, span.end, BLOCK)]
    return [(start, end, span.prefix_length + end - span.start) for start, end in edges]


@lru_cache(maxsize=4)
def _block_mask(dtype: torch.dtype) -> Tensor:
    return torch.full((BLOCK, BLOCK), float("-inf"), dtype=dtype).triu(1)


def _mask(length: int, dtype: torch.dtype) -> Tensor:
    return _block_mask(dtype)[:length, :length]


def _attend(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """transformers' attention interface. With segments the rows are packed, and each attends to itself alone.

    Everything but plain causal attention over short rows goes to torch's kernel.
    """
    segments: tuple[Segment, ...] = options.pop(SEGMENTS, ())
    if unsupported := [name for name in UNSUPPORTED if options.get(name) is not None]:
        raise NotImplementedError(f"attention with {unsupported[0]}")
    if segments:
        attention_mask = None  # the segments say who sees whom
    plain = attention_mask is None and query.shape[2] == key.shape[2] and not options.get("dropout")
    causal = options.get("is_causal")
    causal = getattr(module, "is_causal", True) if causal is None else causal
    each_span = spans(segments or (Segment(query.shape[2]),))  # the same in every batch row
    longest = max(span.context_length for span in each_span)
    same_width = key.shape[-1] == value.shape[-1] == query.shape[-1]
    if plain and causal and same_width and query.device.type == "cpu" and 1 < longest <= MAX_LENGTH:
        scaling = options.get("scaling")
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        row_spans = [(row, span) for row in range(query.shape[0]) for span in each_span]
        return _CausalProducts.apply(query, key, value, row_spans, scale), None  # type: ignore[no-untyped-call]
    if not segments:
        found: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **options)
        return found
    outputs = [_span_sdpa(module, query, key, value, span, options) for span in each_span]
    return torch.cat(outputs, dim=1), None


def _span_sdpa(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, span: Span, options: dict[str, Any]
) -> Tensor:
    """torch's kernel on one span. -> (1, span length, heads, width)."""

    def attend(q: Tensor, key: Tensor, value: Tensor) -> Tensor:
        k, v = (_gather(one[0], span.visible)[None] for one in (key, value))
        # Without a mask the kernel aligns the first query with the first key. A single query may see all keys.
        mask = causal_lower_right(length, span.context_length) if span.prefix_length and length > 1 else None
        found: Tensor = sdpa_attention_forward(module, q, k, v, mask, **options)[0]
        return found

    q, length = query[:, :, span.start : span.end], span.end - span.start
    if not (span.prefix_length and torch.is_grad_enabled()):
        return attend(q, key, value)
    # Keys and values gathered for this span are recomputed, not saved: each row would keep its own copy of the prefix.
    # Nothing in here is random (see `packing.is_stochastic`), so no RNG state has to be restored.
    recomputed: Tensor = checkpoint(attend, q, key, value, use_reentrant=False, preserve_rng_state=False)
    return recomputed


AttentionInterface.register(NAME, _attend)
AttentionMaskInterface.register(NAME, sdpa_mask)
