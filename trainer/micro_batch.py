"""What goes through the model at once: rows end to end without padding, or padded where a model cannot take them so."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import NamedTuple

import torch

from trainer.data import Item, Trainable
from trainer.prefixes import SHORTEST, Line, Segment, Tokens, apart, merged, shared, spans


class Sources(NamedTuple):
    """What an encoder reads of some sequences, padded on the right. ids, mask: (sequences, width)."""

    ids: torch.Tensor
    mask: torch.Tensor

    def to(self, device: torch.device) -> "Sources":
        return Sources(self.ids.to(device), self.mask.to(device))


@dataclass(frozen=True)
class MicroBatch:
    """Sequences that go through the model at once.

    ids: (1, tokens) where they are packed, as a line of these `segments`; else (sequences, width), padded on the right,
    and no segments. places: where, in the flattened hidden states, a trained token is predicted; labels: which. rows:
    what these sequences are, in order; a pair is two of them. sources: for encoder–decoder models alone.
    """

    ids: torch.Tensor
    places: torch.Tensor
    labels: torch.Tensor
    rows: tuple[Trainable, ...]
    sources: Sources | None = None
    segments: tuple[Segment, ...] = ()

    @property
    def items(self) -> list[Item]:
        return [item for row in self.rows for item in row.sequences]

    def to(self, device: torch.device) -> "MicroBatch":
        sources = self.sources and self.sources.to(device)
        ids, places, labels = (one.to(device) for one in (self.ids, self.places, self.labels))
        return replace(self, ids=ids, places=places, labels=labels, sources=sources)


def micro_batches(
    samples: Sequence[Trainable], budget: int, *, packed: bool = False, sharing: bool = False
) -> list[MicroBatch]:
    """Cut a window into passes of at most `budget` tokens; a row, or pair, longer than that gets a pass of its own.

    `sharing`: what packed rows begin with alike is there once.
    """
    if packed:
        lay, common = (merged, _common(samples)) if sharing else (apart, 0)
        return [_pack(some, lay) for some in _lines(samples, budget, lay, common)]
    ordered = sorted(samples, key=_longest, reverse=True)  # rows of like length together: little to pad
    batches = []
    while ordered:
        fitting = _fitting(ordered, budget)
        batches.append(_pad(ordered[:fitting]))
        ordered = ordered[fitting:]
    return batches


Lay = Callable[[Sequence[Tokens]], Line]


def _lines(samples: Sequence[Trainable], budget: int, lay: Lay, common: int) -> list[list[Trainable]]:
    """First-fit decreasing: the longest first, each where there is room. A line has the `common` tokens once."""
    lines: list[list[Trainable]] = []
    room: list[int] = []
    sizes = [(lay(_read(sample)).tokens, sample) for sample in samples]
    for tokens, sample in sorted(sizes, key=itemgetter(0), reverse=True):
        # Beside others. What is predicted has a state of its own each, however much of a row is shared.
        more = max(tokens - common, sample.trained_tokens)
        at = next((at for at, left in enumerate(room) if more <= left), len(lines))
        if at == len(lines):
            lines.append([])
            room.append(budget - common)
        lines[at].append(sample)
        room[at] -= more
    return lines


def _common(samples: Sequence[Trainable]) -> int:
    """How many tokens all of them begin with, where sharing them pays."""
    rows = [row for sample in samples for row in _read(sample)]
    alike = shared(min(rows), max(rows)) if rows else 0
    return alike if alike >= SHORTEST else 0


def _read(sample: Trainable) -> list[Tokens]:
    """What goes through the model of each sequence; the last token is only ever predicted."""
    return [item.ids[:-1] for item in sample.sequences]


def _pack(samples: Sequence[Trainable], lay: Lay) -> MicroBatch:
    items = [item for sample in samples for item in sample.sequences]
    rows = [row for sample in samples for row in _read(sample)]
    line = lay(rows)
    ids, stretches = [0] * line.tokens, spans(line.segments)
    standing = [[place for one in path for place in range(*stretches[one][:2])] for path in line.paths]
    for row, stands in zip(rows, standing, strict=True):
        for place, token in zip(stands, row, strict=True):
            ids[place] = token
    places, labels = _aims(items, standing)
    return MicroBatch(torch.tensor([ids]), places, labels, tuple(samples), segments=line.segments)


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
    places, labels = _aims(items, [range(row * width, (row + 1) * width) for row in range(len(items))])
    sources = _sources(items) if items[0].source else None
    return MicroBatch(ids, places, labels, tuple(samples), sources)


def _aims(items: Sequence[Item], standing: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Where trained tokens are predicted, and which they are. `standing`: where each token that is read stands."""
    aims: list[int] = []
    labels: list[int] = []
    for item, places in zip(items, standing, strict=True):
        learnt = [at for at, flag in enumerate(item.loss_mask) if flag]
        aims += [places[at - item.source - 1] for at in learnt]
        labels += [item.ids[at] for at in learnt]
    return torch.tensor(aims), torch.tensor(labels)


def _sources(items: Sequence[Item]) -> Sources:
    width = max(item.source for item in items)
    ids = torch.zeros((len(items), width), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, item in enumerate(items):
        ids[row, : item.source] = torch.tensor(item.ids[: item.source], dtype=torch.long)
        mask[row, : item.source] = 1
    return Sources(ids, mask)
