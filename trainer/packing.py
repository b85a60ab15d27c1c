"""Rows of a pass end to end, without padding: how a model is told of them, and whether it keeps them apart."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from trainer.prefixes import Segment, spans
from trainer.short_attention import NAME, SEGMENTS

if TYPE_CHECKING:
    from trainer.model import AdaptedModel

WINDOWS = ("sliding_window", "attention_chunk_size")  # what families call a limit to how far back attention looks
PROBE = (
    Segment(5),
    Segment(3),
    Segment(4, after=0),
    Segment(1, after=0),
)  # rows that are tried; two begin as the first
STRETCHED = (
    "dynamic",
    "longrope",
)  # positions that depend on the longest row of a pass, past the length they began with


def told_apart(ids: Tensor, segments: tuple[Segment, ...]) -> dict[str, Any]:
    """What a model is given beside ids of shape (1, tokens): positions that start again, and what each token sees."""
    places = [range(span.before, span.whole) for span in spans(segments)]
    positions = torch.tensor([[position for place in places for position in place]], device=ids.device)
    # A mask that looks ready is passed on as it is: nobody builds one of tokens times tokens. Our attention needs none.
    ready = torch.zeros(1, 1, 1, 1, device=ids.device)
    return {"position_ids": positions, "attention_mask": ready, SEGMENTS: segments}


def keeps_apart(model: "AdaptedModel", *, longest: int, agree: float) -> bool:
    """Whether rows of at most `longest` tokens score packed as they do alone. Families are tried, not known by name.

    Layers that carry a state along the row, or take positions from elsewhere, show at once.
    """
    config: Any = model.peft.get_base_model().config
    windows = [getattr(config, name, None) for name in WINDOWS]
    if model.is_seq2seq or config._attn_implementation != NAME or any(one and one < longest for one in windows):
        return False
    if _is_stretched(config, longest):
        return False
    place, size = model.device.place, config.get_text_config().vocab_size
    ids = (torch.arange(sum(one.length for one in PROBE), device=place) * 7 + 33) % size
    rows = [torch.cat([ids[start:end] for start, end in span.seen]) for span in spans(PROBE)]
    each = [model.hidden(row[None])[0, span.before :] for row, span in zip(rows, spans(PROBE), strict=True)]
    try:
        packed = model.hidden(ids[None], segments=PROBE)[0]
    except (TypeError, ValueError, RuntimeError, IndexError):  # a family that cannot be told of them
        return False
    expected, found = model.head.logits(torch.cat(each)), model.head.logits(packed)
    return bool((expected - found).abs().max() <= agree * expected.abs().max())


def _is_stretched(config: Any, longest: int) -> bool:
    """Whether what a position means may depend on the other rows of a pass."""
    rope: dict[str, Any] = getattr(config, "rope_parameters", None) or {}
    lengths = (rope.get("original_max_position_embeddings"), getattr(config, "original_max_position_embeddings", None))
    began: int = next((length for length in lengths if length), getattr(config, "max_position_embeddings", 0))
    stretches = rope.get("rope_type") in STRETCHED and longest > began
    return stretches or bool(getattr(config, "attn_temperature_tuning", None))


def is_random(model: "AdaptedModel") -> bool:
    """Whether something is drawn while it learns: each row then has a draw of its own, and shares nothing."""
    if any(isinstance(one, nn.Dropout) and one.p for one in model.peft.modules()):  # of an update that is zero as yet
        return True
    place = model.device.place
    ids = torch.arange(5, 13, device=place)[None] % model.head.weight.shape[0]
    with torch.no_grad(), torch.random.fork_rng(devices=[place] if model.device.is_cuda else []):
        return not torch.equal(model.hidden(ids), model.hidden(ids))
