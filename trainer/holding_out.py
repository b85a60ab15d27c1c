"""The split into training and held-out rows: by a named split of the dataset, or by a share of its rows."""

import hashlib
from collections.abc import Sequence
from typing import Generic, NamedTuple, TypeVar

from trainer.estimate import held_out_rows
from trainer.events import Emit, Log, counted
from trainer.formats.splitting import TRAIN

Sample = TypeVar("Sample")


class Found(NamedTuple, Generic[Sample]):
    """A row to divide. `content`: equal for duplicates. `split`: the dataset's split it belongs to."""

    content: str
    split: str | None
    sample: Sample


def divide(  # noqa: PLR0913 - all that decides on which side a row is
    found: Sequence[Found[Sample]],
    *,
    split: str,
    share: float,
    seed: int,
    emit: Emit,
    evaluation: Sequence[Found[Sample]] = (),
) -> tuple[list[Sample], list[Sample]]:
    """Training rows and held-out rows.

    If the rows have a split called `split`, exactly those are held out, the split `train` is trained on, and any others
    are left out. Otherwise a `share` of the training rows is held out. An empty `split` ignores splits.
    `evaluation`: rows of another file, which are held out instead.
    """
    if not split or all(one.split is None for one in found):
        train, held_out = list(found), list(evaluation)
    else:
        train = [one for one in found if one.split in (None, TRAIN)]
        held_out = list(evaluation) or [one for one in found if one.split == split]
    if not held_out:
        return hold_out([(one.content, one.sample) for one in train], share=share, seed=seed)
    known = {one.content for one in held_out}
    if twice := sum(one.content in known for one in train):
        where = "the evaluation file" if evaluation else f"the split {split}"
        rows = counted(twice, "training row is", "training rows are")
        text = f"{rows} the same as rows of {where}: its loss will look too good"
        emit(Log(level="warning", text=text))
    return [one.sample for one in train], [one.sample for one in held_out]


def hold_out(items: list[tuple[str, Sample]], *, share: float, seed: int) -> tuple[list[Sample], list[Sample]]:
    """Hold out a `share` of the rows, chosen by a hash of their content, so that their order does not matter.

    Duplicates stay together, or evaluation would see memorised rows.
    """
    indices: dict[str, list[int]] = {}
    for index, (content, _) in enumerate(items):
        indices.setdefault(content, []).append(index)
    count, held = held_out_rows(len(items), share), set[int]()
    groups = [
        indices[name] for name in sorted(indices, key=lambda one: hashlib.sha256(f"{seed}:{one}".encode()).digest())
    ]
    for group in groups:
        if len(held) + len(group) <= count:
            held.update(group)
    if count and not held and len(groups) > 1:  # every row has more duplicates than the share allows
        smallest = min(groups, key=len)
        held.update(smallest)
    train = [item for index, (_, item) in enumerate(items) if index not in held]
    return train, [items[index][1] for index in sorted(held)]
