"""Passes of processes that share a base out: none may make fewer than the others, for all put each layer together."""

from collections.abc import Sequence

import torch

from trainer.data import Trainable
from trainer.micro_batch import Sources
from trainer.model import AdaptedModel
from trainer.ranks import Ranks


def keep_pace(model: AdaptedModel, ranks: Ranks, rows: Sequence[Trainable], budget: int) -> None:
    """After this process's share of `rows`: as many idle passes as the one with the most has more.

    They give no gradient but zeros. Nothing to do where each process has the whole base.
    """
    if not model.is_sharded:
        return
    for _ in range(idle_passes(model, ranks, rows, budget)):
        ids = torch.zeros((1, 1), dtype=torch.long, device=model.device.place)
        states = model.hidden(ids, Sources(ids, torch.ones_like(ids)) if model.is_seq2seq else None)
        if states.requires_grad:
            (states.sum() * 0.0).backward()  # type: ignore[no-untyped-call]


def idle_passes(model: AdaptedModel, ranks: Ranks, rows: Sequence[Trainable], budget: int) -> int:
    passes = [len(model.passes(Ranks(rank, ranks.of).share(rows), budget)) for rank in range(ranks.of)]
    return max(passes) - passes[ranks.rank]
