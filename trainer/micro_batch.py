"""What goes through the model at once: rows end to end without padding, or padded where a model cannot take them so."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import NamedTuple

import torch

from trainer.data import Item, Trainable


class Sources(NamedTuple):
    """What an encoder reads of some sequences, padded on the right. ids, mask: (sequences, width)."""

    ids: torch.Tensor
    mask: torch.Tensor

    def to(self, device: torch.device) -> "Sources":
        return Sources(self.ids.to(device), self.mask.to(device))


@dataclass(frozen=True)
class MicroBatch:
    """Sequences that go through the model at once.

    ids: (1, tokens) where they are packed, one behind another with these `lengths`; else (sequences, width), padded on
    the right, and no lengths. places: where, in the flattened hidden states, a trained token is predicted; labels:
    which. rows: what these sequences are, in order; a pair is two of them. sources: for encoder–decoder models alone.
    """

    ids: torch.Tensor
    places: torch.Tensor
    labels: torch.Tensor
    rows: tuple[Trainable, ...]
    sources: Sources | None = None
    lengths: tuple[int, ...] = ()

    @property
    def items(self) -> list[Item]:
        return [item for row in self.rows for item in row.sequences]

    def to(self, device: torch.device) -> "MicroBatch":
        sources = self.sources and self.sources.to(device)
        ids, places, labels = (one.to(device) for one in (self.ids, self.places, self.labels))
        return replace(self, ids=ids, places=places, labels=labels, sources=sources)


def micro_batches(samples: Sequence[Trainable], budget: int, *, packed: bool = False) -> list[MicroBatch]:
    """Cut a window into passes of at most `budget` tokens; a row, or pair, longer than that gets a pass of its own."""
    if packed:
        return [_pack(some) for some in _lines(samples, budget)]
    ordered = sorted(samples, key=_longest, reverse=True)  # rows of like length together: little to pad
    batches = []
    while ordered:
        fitting = _fitting(ordered, budget)
        batches.append(_pad(ordered[:fitting]))
        ordered = ordered[fitting:]
    return batches


def _lines(samples: Sequence[Trainable], budget: int) -> list[list[Trainable]]:
    """First-fit decreasing: the longest first, each where there is room."""
    lines: list[list[Trainable]] = []
    room: list[int] = []
    for sample in sorted(samples, key=_tokens, reverse=True):
        at = next((at for at, left in enumerate(room) if _tokens(sample) <= left), len(lines))
        if at == len(lines):
            lines.append([])
            room.append(budget)
        lines[at].append(sample)
        room[at] -= _tokens(sample)
    return lines


def _tokens(sample: Trainable) -> int:
    return sum(item.length for item in sample.sequences)


def _pack(samples: Sequence[Trainable]) -> MicroBatch:
    items = [item for sample in samples for item in sample.sequences]
    lengths = tuple(item.length for item in items)
    ids = torch.tensor([[token for item in items for token in item.ids[:-1]]], dtype=torch.long)
    places, labels = _aims(items, accumulate(lengths[:-1], initial=0))
    return MicroBatch(ids, places, labels, tuple(samples), lengths=lengths)


def _longest(sample: Trainable) -> int:
    return max(item.length for item in sample.sequences)


def _fitting(ordered: Sequence[Trainable], budget: int) -> int:
    """How many of the first rows fit into a pass with their padding; at least one."""
    sequences = width = source = 0
    for count, sample in enumerate(ordered):
        sequences += len(sample.sequences)
        width = max(width, *(item.width for item in sample.sequences))
        source = max(source, *(item.source for item in sample.sequences))
        if sequences * (width + source) > budget:
            return max(1, count)
    return len(ordered)


def _pad(samples: Sequence[Trainable]) -> MicroBatch:
    items = [item for sample in samples for item in sample.sequences]
    width = max(item.width for item in items)
    ids = torch.zeros((len(items), width), dtype=torch.long)
    for row, item in enumerate(items):
        ids[row, : item.width] = torch.tensor(item.ids[item.source : -1], dtype=torch.long)
    places, labels = _aims(items, (row * width for row in range(len(items))))
    sources = _sources(items) if items[0].source else None
    return MicroBatch(ids, places, labels, tuple(samples), sources)


def _aims(items: Sequence[Item], starts: Iterable[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Where trained tokens are predicted, and which they are, of sequences that start at these places."""
    places: list[int] = []
    labels: list[int] = []
    for item, start in zip(items, starts, strict=True):
        learnt = [at for at, flag in enumerate(item.trained) if flag]
        places += [start + at - item.source - 1 for at in learnt]
        labels += [item.ids[at] for at in learnt]
    return torch.tensor(places), torch.tensor(labels)


def _sources(items: Sequence[Item]) -> Sources:
    width = max(item.source for item in items)
    ids = torch.zeros((len(items), width), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, item in enumerate(items):
        ids[row, : item.source] = torch.tensor(item.ids[: item.source], dtype=torch.long)
        mask[row, : item.source] = 1
    return Sources(ids, mask)
