"""Micro-batches: rows packed end to end, or padded for models that cannot keep packed rows apart."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from operator import itemgetter
from typing import NamedTuple

import torch

from trainer.data import Item, Trainable
from trainer.prefixes import MIN_SHARED, Layout, Segment, Tokens, common_prefix, flat_layout, prefix_tree_layout, spans


class EncoderInputs(NamedTuple):
    """What an encoder reads of each sequence, padded on the right. ids, mask: (sequences, width)."""

    ids: torch.Tensor
    mask: torch.Tensor

    def to(self, device: torch.device) -> "EncoderInputs":
        return EncoderInputs(self.ids.to(device), self.mask.to(device))


@dataclass(frozen=True)
class MicroBatch:
    """Sequences that go through the model in one forward pass.

    ids: (1, tokens) and the `segments` in it if packed; else (sequences, width), padded on the right, no segments.
    positions: indices into the flattened hidden states that predict a trained token; labels: those tokens.
    rows: the samples, in order; a preference pair is two sequences. encoder_inputs: for encoder–decoder models only.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    labels: torch.Tensor
    rows: tuple[Trainable, ...]
    encoder_inputs: EncoderInputs | None = None
    segments: tuple[Segment, ...] = ()

    @property
    def items(self) -> list[Item]:
        return [item for row in self.rows for item in row.sequences]

    def to(self, device: torch.device) -> "MicroBatch":
        encoder_inputs = self.encoder_inputs and self.encoder_inputs.to(device)
        ids, positions, labels = (one.to(device) for one in (self.ids, self.positions, self.labels))
        return replace(self, ids=ids, positions=positions, labels=labels, encoder_inputs=encoder_inputs)


class Passes:
    """Micro-batches, each built when it is asked for: those of a whole dataset would take more memory than its rows."""

    def __init__(
        self, groups: Sequence[Sequence[Trainable]], build: Callable[[Sequence[Trainable]], MicroBatch]
    ) -> None:
        self._groups = groups
        self._build = build

    def __len__(self) -> int:
        return len(self._groups)

    def __getitem__(self, number: int) -> MicroBatch:
        return self._build(self._groups[number])

    def __iter__(self) -> Iterator[MicroBatch]:
        return map(self._build, self._groups)


def micro_batches(samples: Sequence[Trainable], budget: int, *, packed: bool = False, sharing: bool = False) -> Passes:
    """Split a window into micro-batches of at most `budget` tokens; a longer row, or pair, gets one of its own.

    `sharing`: packed rows share common prefixes, see `trainer.prefixes`.
    """
    if packed:
        lay_out, prefix = (prefix_tree_layout, _common_prefix(samples)) if sharing else (flat_layout, 0)
        return Passes(_bins(samples, budget, lay_out, prefix), partial(_pack, lay_out=lay_out))
    return Passes(_padded_groups(samples, budget), _pad)


LayOut = Callable[[Sequence[Tokens]], Layout]


def _bins(samples: Sequence[Trainable], budget: int, lay_out: LayOut, prefix: int) -> list[list[Trainable]]:
    """First-fit decreasing bin packing. Each bin holds the first `prefix` tokens, common to all samples, once.

    A segment tree finds the first bin with enough room in logarithmic time (Johnson 1974): evaluation and scoring pack
    whole datasets.
    """
    bins: list[list[Trainable]] = []
    capacity = budget - prefix
    leaves = 1 << len(samples).bit_length()
    room = [capacity] * (2 * leaves)  # of bin n at leaves + n; above that the most of any bin below a node
    sizes = [(lay_out(_inputs(sample)).tokens, sample) for sample in samples]
    for tokens, sample in sorted(sizes, key=itemgetter(0), reverse=True):
        # Beyond the prefix. Each label needs a hidden state of its own, however much of a row is shared.
        added = max(tokens - prefix, sample.trained_tokens)
        node = 1
        while node < leaves:
            node = 2 * node if added <= room[2 * node] else 2 * node + 1
        at = node - leaves if added <= capacity else len(bins)  # what no bin holds gets a new one for itself
        if at == len(bins):
            bins.append([])
        bins[at].append(sample)
        node = leaves + at
        room[node] -= added
        while node := node // 2:
            room[node] = max(room[2 * node], room[2 * node + 1])
    return bins


def _common_prefix(samples: Sequence[Trainable]) -> int:
    """Length of the prefix common to all samples, or 0 if it is too short to share."""
    rows = [row for sample in samples for row in _inputs(sample)]
    length = common_prefix(min(rows), max(rows)) if rows else 0
    return length if length >= MIN_SHARED else 0


def _inputs(sample: Trainable) -> list[Tokens]:
    """The input tokens of each sequence: all but the last, which is only ever predicted."""
    return [item.ids[:-1] for item in sample.sequences]


def _pack(samples: Sequence[Trainable], lay_out: LayOut) -> MicroBatch:
    items = [item for sample in samples for item in sample.sequences]
    rows = [row for sample in samples for row in _inputs(sample)]
    layout = lay_out(rows)
    ids, found = [0] * layout.tokens, spans(layout.segments)
    row_positions = [[at for one in path for at in range(found[one].start, found[one].end)] for path in layout.paths]
    for row, its_positions in zip(rows, row_positions, strict=True):
        for at, token in zip(its_positions, row, strict=True):
            ids[at] = token
    positions, labels = _targets(items, row_positions)
    return MicroBatch(torch.tensor([ids]), positions, labels, tuple(samples), segments=layout.segments)


def _longest(sample: Trainable) -> int:
    return max(item.length for item in sample.sequences)


def _padded_groups(samples: Sequence[Trainable], budget: int) -> list[list[Trainable]]:
    """Rows of similar length together, for little padding: as many as `budget` holds, and at least one."""
    groups: list[list[Trainable]] = []
    sequences = width = source = 0  # of the last group
    for sample in sorted(samples, key=_longest, reverse=True):
        own_width, own_source = (max(getattr(item, name) for item in sample.sequences) for name in ("width", "source"))
        count = sequences + len(sample.sequences)
        if not groups or count * (max(width, own_width) + max(source, own_source)) > budget:
            groups.append([])
            count, width, source = len(sample.sequences), 0, 0
        groups[-1].append(sample)
        sequences, width, source = count, max(width, own_width), max(source, own_source)
    return groups


def _pad(samples: Sequence[Trainable]) -> MicroBatch:
    items = [item for sample in samples for item in sample.sequences]
    width = max(item.width for item in items)
    ids = torch.zeros((len(items), width), dtype=torch.long)
    for row, item in enumerate(items):
        ids[row, : item.width] = torch.tensor(item.ids[item.source : -1], dtype=torch.long)
    positions, labels = _targets(items, [range(row * width, (row + 1) * width) for row in range(len(items))])
    encoder_inputs = _encoder_inputs(items) if items[0].source else None
    return MicroBatch(ids, positions, labels, tuple(samples), encoder_inputs)


def _targets(items: Sequence[Item], row_positions: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Positions that predict a trained token, and those tokens. `row_positions`: that of each input token of a row."""
    positions: list[int] = []
    labels: list[int] = []
    for item, its_positions in zip(items, row_positions, strict=True):
        trained = [at for at, flag in enumerate(item.loss_mask) if flag]
        positions += [its_positions[at - item.source - 1] for at in trained]
        labels += [item.ids[at] for at in trained]
    return torch.tensor(positions), torch.tensor(labels)


def _encoder_inputs(items: Sequence[Item]) -> EncoderInputs:
    width = max(item.source for item in items)
    ids = torch.zeros((len(items), width), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, item in enumerate(items):
        ids[row, : item.source] = torch.tensor(item.ids[: item.source], dtype=torch.long)
        mask[row, : item.source] = 1
    return EncoderInputs(ids, mask)
