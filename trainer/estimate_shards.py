"""What a frozen base takes on each of several GPUs that share it out, see `trainer.sharding`. No torch."""

import dataclasses

from trainer.estimate_layers import Facts, blocks, number_bytes, values_in_layers
from trainer.estimate_memory import STORED, MemoryItem, Place
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
    in_layers = values_in_layers(facts) * STORED.get(spec.model.quantization, number_bytes(spec))
    outside = max(0, int(facts["parameters"]) - values_in_layers(facts)) * number_bytes(spec)
    share = round((in_layers + outside) / spec.model.gpus + AT_ONCE * in_layers / blocks(facts) + outside)
    low = round((in_layers + outside) / spec.model.gpus)
    return (dataclasses.replace(weights, low=low, expected=share, high=round(share * 1.1), lever=LEVER), *others)
