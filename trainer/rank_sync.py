"""Keeps processes in step: identical initial weights, and equally many passes each when the base is sharded."""

from collections.abc import Sequence

import torch

from trainer.data import Trainable
from trainer.lora_start import lora_layers
from trainer.micro_batch import EncoderInputs
from trainer.model import AdaptedModel
from trainer.optimizer import MasterAdamW
from trainer.ranks import Ranks


def run_idle_passes(model: AdaptedModel, ranks: Ranks, rows: Sequence[Trainable], budget: int) -> None:
    """Run dummy passes until this process has made as many as the one with the most.

    With a sharded base (FSDP) every pass gathers each layer from all processes, so all must make equally many. Dummy
    passes add only zeros to the gradient. Without sharding there is nothing to do.
    """
    if model.is_sharded:
        for _ in range(idle_pass_count(model, ranks, rows, budget)):
            run_idle_pass(model)


def run_idle_pass(model: AdaptedModel) -> None:
    """One dummy pass, where the base is sharded."""
    if not model.is_sharded:
        return
    ids = torch.zeros((1, 1), dtype=torch.long, device=model.device.place)
    states = model.hidden(ids, EncoderInputs(ids, torch.ones_like(ids)) if model.is_seq2seq else None)
    if states.requires_grad:
        (states.sum() * 0.0).backward()  # type: ignore[no-untyped-call]


def idle_pass_count(model: AdaptedModel, ranks: Ranks, rows: Sequence[Trainable], budget: int) -> int:
    """How many passes fewer than the process with the most this one makes over its share of `rows`."""
    if ranks.is_alone:
        return 0
    passes = [len(model.passes(Ranks(rank, ranks.world_size).share(rows), budget)) for rank in range(ranks.world_size)]
    return max(passes) - passes[ranks.rank]


def sync_initial_weights(model: AdaptedModel, optimizer: MasterAdamW, ranks: Ranks) -> None:
    """Give every process the main process's initial weights: computed ones may differ in a bit between GPUs.

    Initialisations that modify the base's weights (PiSSA, OLoRA) have those synchronised, too. A sharded base needs
    none of this, as all its shards come from the same CPU computation.
    """
    if ranks.is_alone:
        return
    differing = [ranks.broadcast(one) for one in (*optimizer.masters.values(), *model.initial.values())]
    optimizer.copy_to_model()
    if model.initial and any(differing) and not model.is_sharded:
        for layer in lora_layers(model.peft):
            ranks.broadcast(layer.module.get_base_layer().weight.data)
