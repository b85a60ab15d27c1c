"""What a frozen base takes on each of several GPUs that share it out, see `trainer.sharding`. No torch."""

import dataclasses

from trainer.estimate_layers import BaseBytes, Facts, blocks
from trainer.estimate_memory import MemoryItem, Place
from trainer.spec import TrainSpec

AT_ONCE = 2  # layers that are whole: the one that computes, and the next one on its way
LEVER = "More GPUs take smaller shares; a smaller base model, or nf4, takes less of everything."


def on_each_card(spec: TrainSpec, facts: Facts, items: tuple[MemoryItem, ...], place: Place) -> tuple[MemoryItem, ...]:
    """The same parts, with the base's share of one GPU in place of all of it where it is shared out."""
    needed = sum(item.expected for item in items)
    too_much = 0 < place.memory_bytes < needed
    if spec.model.gpus == 1 or spec.model.shard == "never" or (spec.model.shard == "auto" and not too_much):
        return items
    weights, *others = items
    base = BaseBytes.of(spec, facts)
    low = round(base.stored / spec.model.gpus)
    share = round(base.stored / spec.model.gpus + AT_ONCE * base.layers / blocks(facts) + base.outside)
    return (dataclasses.replace(weights, low=low, expected=share, high=round(share * 1.1), lever=LEVER), *others)
