"""Which rows are learned from and which are only measured on: a named split of the dataset, or a share of its rows."""

import hashlib
from collections.abc import Sequence
from typing import Generic, NamedTuple, TypeVar

from trainer.estimate import held_out_rows
from trainer.events import Emit, Log
from trainer.formats.splitting import TRAIN

Sample = TypeVar("Sample")


class Found(NamedTuple, Generic[Sample]):
    """What became of a row. `content` is the same for all copies of it; `split` its part of the dataset."""

    content: str
    split: str | None
    sample: Sample


def divide(
    found: Sequence[Found[Sample]], *, split: str, share: float, seed: int, emit: Emit
) -> tuple[list[Sample], list[Sample]]:
    """Rows to learn from, and rows to measure on.

    Where the rows have splits, those of `split` are measured on, all of them and no others, and what is in any further
    split is left out. Without them, or without that one, a `share` of the rows is kept aside. An empty `split` ignores
    splits.
    """
    if not split or all(one.split is None for one in found):
        return keep_aside([(one.content, one.sample) for one in found], share=share, seed=seed)
    learnt = [one for one in found if one.split in (None, TRAIN)]
    measured = [one for one in found if one.split == split]
    if not measured:
        return keep_aside([(one.content, one.sample) for one in learnt], share=share, seed=seed)
    known = {one.content for one in measured}
    if twice := sum(one.content in known for one in learnt):
        text = f"{twice:,} rows to learn from say the same as rows of the split {split}: the measure will look too good"
        emit(Log(level="warning", text=text))
    return [one.sample for one in learnt], [one.sample for one in measured]


def keep_aside(items: list[tuple[str, Sample]], *, share: float, seed: int) -> tuple[list[Sample], list[Sample]]:
    """Keep `share` of the rows aside, chosen by what is in them: the same rows whatever order they come in.

    Copies of a row stay together, or the measure would hold what was learnt by heart.
    """
    copies: dict[str, list[int]] = {}
    for at, (content, _) in enumerate(items):
        copies.setdefault(content, []).append(at)
    aside, held = held_out_rows(len(items), share), set[int]()
    groups = [
        copies[name] for name in sorted(copies, key=lambda one: hashlib.sha256(f"{seed}:{one}".encode()).digest())
    ]
    for group in groups:
        if len(held) + len(group) <= aside:
            held.update(group)
    if aside and not held and len(groups) > 1:  # every row has copies, more than were to be kept aside
        smallest = min(groups, key=len)
        held.update(smallest)
    train = [item for at, (_, item) in enumerate(items) if at not in held]
    return train, [items[at][1] for at in sorted(held)]
