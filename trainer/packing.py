"""Rows of a pass end to end, without padding: how a model is told of them, and whether it keeps them apart."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from trainer.short_attention import LENGTHS, NAME

if TYPE_CHECKING:
    from trainer.model import AdaptedModel

WINDOWS = ("sliding_window", "attention_chunk_size")  # what families call a limit to how far back attention looks
PROBE = (5, 3, 4)  # tokens of the rows that are tried


def told_apart(ids: Tensor, lengths: tuple[int, ...]) -> dict[str, Any]:
    """What a model is given beside ids of shape (1, tokens): positions that start again, and how long each row is."""
    positions = torch.cat([torch.arange(length, device=ids.device) for length in lengths])
    # A mask that looks ready is passed on as it is: nobody builds one of tokens times tokens. Our attention needs none.
    ready = torch.zeros(1, 1, 1, 1, device=ids.device)
    return {"position_ids": positions[None], "attention_mask": ready, LENGTHS: lengths}


def keeps_apart(model: "AdaptedModel", *, longest: int, agree: float) -> bool:
    """Whether rows of at most `longest` tokens score packed as they do alone. Families are tried, not known by name.

    Layers that carry a state along the row, or take positions from elsewhere, show at once.
    """
    config: Any = model.peft.get_base_model().config
    windows = [getattr(config, name, None) for name in WINDOWS]
    if model.is_seq2seq or config._attn_implementation != NAME or any(one and one < longest for one in windows):
        return False
    place, size = model.device.place, config.get_text_config().vocab_size
    rows = [(torch.arange(length, device=place) * 7 + 11 * length) % size for length in PROBE]
    alone = torch.cat([model.hidden(row[None])[0] for row in rows])
    try:
        packed = model.hidden(torch.cat(rows)[None], lengths=PROBE)[0]
    except (TypeError, ValueError, RuntimeError, IndexError):  # a family that cannot be told of them
        return False
    expected, found = model.head.logits(alone), model.head.logits(packed)
    return bool((expected - found).abs().max() <= agree * expected.abs().max())
