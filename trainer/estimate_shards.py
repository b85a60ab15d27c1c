"""Memory per GPU of a frozen base that is sharded over several GPUs, see `trainer.sharding`. No torch."""

import dataclasses

from trainer.estimate_layers import BaseBytes, Facts, layer_count
from trainer.estimate_memory import Hardware, MemoryItem
from trainer.spec import TrainSpec

LAYERS_GATHERED = 2  # the layer that computes, and the next one, prefetched
LEVER = "More GPUs hold smaller shards; a smaller base model, or nf4, lowers everything."


def per_gpu(spec: TrainSpec, facts: Facts, items: tuple[MemoryItem, ...], hardware: Hardware) -> tuple[MemoryItem, ...]:
    """The same items; if the base is sharded, its weights are those on one GPU."""
    needed = sum(item.expected for item in items)
    too_much = 0 < hardware.memory_bytes < needed
    if spec.model.gpus == 1 or spec.model.shard == "never" or (spec.model.shard == "auto" and not too_much):
        return items
    weights, *others = items
    base = BaseBytes.of(spec, facts)
    low = round(base.stored / spec.model.gpus)
    share = round(base.stored / spec.model.gpus + LAYERS_GATHERED * base.layers / layer_count(facts) + base.other)
    return (dataclasses.replace(weights, low=low, expected=share, high=round(share * 1.1), lever=LEVER), *others)
