"""What keeps processes alike: the same weights at the start, and, where they share a base out, as many passes each, for
all put each layer together."""

from collections.abc import Sequence

import torch

from trainer.data import Trainable
from trainer.lora_start import lora_layers
from trainer.micro_batch import EncoderInputs
from trainer.model import AdaptedModel
from trainer.optimizer import MasterAdamW
from trainer.ranks import Ranks


def run_idle_passes(model: AdaptedModel, ranks: Ranks, rows: Sequence[Trainable], budget: int) -> None:
    """After this process's share of `rows`: as many idle passes as the one with the most has more.

    They give no gradient but zeros. Nothing to do where each process has the whole base.
    """
    if not model.is_sharded:
        return
    for _ in range(idle_pass_count(model, ranks, rows, budget)):
        ids = torch.zeros((1, 1), dtype=torch.long, device=model.device.place)
        states = model.hidden(ids, EncoderInputs(ids, torch.ones_like(ids)) if model.is_seq2seq else None)
        if states.requires_grad:
            (states.sum() * 0.0).backward()  # type: ignore[no-untyped-call]


def idle_pass_count(model: AdaptedModel, ranks: Ranks, rows: Sequence[Trainable], budget: int) -> int:
    passes = [len(model.passes(Ranks(rank, ranks.world_size).share(rows), budget)) for rank in range(ranks.world_size)]
    return max(passes) - passes[ranks.rank]


def sync_initial_weights(model: AdaptedModel, optimizer: MasterAdamW, ranks: Ranks) -> None:
    """Let every process start with the first one's weights: what a start computes may differ in a bit between cards.

    Where the start was taken out of the base's weights (PiSSA, OLoRA), these become the first one's as well. Parts of a
    base are all made by the same processor, and need not.
    """
    if ranks.is_alone:
        return
    differing = [ranks.broadcast(one) for one in (*optimizer.masters.values(), *model.initial.values())]
    optimizer.copy_to_model()
    if model.initial and any(differing) and not model.is_sharded:
        for layer in lora_layers(model.peft):
            ranks.broadcast(layer.module.get_base_layer().weight.data)
