"""Sequence packing: rows end to end without padding, and a check that a model keeps packed rows independent."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from trainer.prefixes import Segment, spans
from trainer.short_attention import NAME, SEGMENTS

if TYPE_CHECKING:
    from trainer.model import AdaptedModel

WINDOWS = ("sliding_window", "attention_chunk_size")  # config names for a limit on how far back attention looks
PROBE = (Segment(5), Segment(3), Segment(4, parent=0), Segment(1, parent=0))  # two rows share the first one's prefix
LENGTH_DEPENDENT_ROPE = ("dynamic", "longrope")  # beyond the original context, positions depend on the longest row


def packed_inputs(ids: Tensor, segments: tuple[Segment, ...]) -> dict[str, Any]:
    """Model inputs that go with packed ids of shape (1, tokens): positions that restart, and the segments."""
    ranges = [range(span.prefix_length, span.context_length) for span in spans(segments)]
    positions = torch.tensor([[position for one in ranges for position in one]], device=ids.device)
    # A 4D mask is passed through as it is, so none of tokens x tokens is built. Our attention needs none.
    dummy_mask = torch.zeros(1, 1, 1, 1, device=ids.device)
    return {"position_ids": positions, "attention_mask": dummy_mask, SEGMENTS: segments}


def supports_packing(model: "AdaptedModel", *, longest: int, tolerance: float) -> bool:
    """Whether rows of at most `longest` tokens score packed as they do alone. Tested on the model, not by its family.

    Layers that carry a state along the row, or take positions from elsewhere, fail the test.
    """
    config: Any = model.peft.get_base_model().config
    windows = [getattr(config, name, None) for name in WINDOWS]
    if model.is_seq2seq or config._attn_implementation != NAME or any(one and one < longest for one in windows):
        return False
    if _has_length_dependent_positions(config, longest):
        return False
    place, size = model.device.place, config.get_text_config().vocab_size
    ids = (torch.arange(sum(one.length for one in PROBE), device=place) * 7 + 33) % size
    rows = [torch.cat([ids[start:end] for start, end in span.visible]) for span in spans(PROBE)]
    alone = [model.hidden(row[None])[0, span.prefix_length :] for row, span in zip(rows, spans(PROBE), strict=True)]
    try:
        packed = model.hidden(ids[None], segments=PROBE)[0]
    except (TypeError, ValueError, RuntimeError, IndexError):  # a family that does not take segments
        return False
    expected, found = model.head.logits(torch.cat(alone)), model.head.logits(packed)
    return bool((expected - found).abs().max() <= tolerance * expected.abs().max())


def _has_length_dependent_positions(config: Any, longest: int) -> bool:
    """Whether position embeddings may depend on the other rows of the batch."""
    rope: dict[str, Any] = getattr(config, "rope_parameters", None) or {}
    lengths = (rope.get("original_max_position_embeddings"), getattr(config, "original_max_position_embeddings", None))
    original: int = next((length for length in lengths if length), getattr(config, "max_position_embeddings", 0))
    stretched = rope.get("rope_type") in LENGTH_DEPENDENT_ROPE and longest > original
    return stretched or bool(getattr(config, "attn_temperature_tuning", None))


def is_stochastic(model: "AdaptedModel") -> bool:
    """Whether training draws random numbers (dropout, noise): each row then needs its own, so nothing can be shared."""
    # LoRA dropout would not show below: the update is still zero.
    if any(isinstance(one, nn.Dropout) and one.p for one in model.peft.modules()):
        return True
    place = model.device.place
    ids = torch.arange(5, 13, device=place)[None] % model.head.weight.shape[0]
    with torch.no_grad(), torch.random.fork_rng(devices=[place] if model.device.is_cuda else []):
        return not torch.equal(model.hidden(ids), model.hidden(ids))
