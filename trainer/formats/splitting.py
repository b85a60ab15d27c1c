"""Seeded, stratified splits of a dataset; copies of a row stay together."""

import hashlib
import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, get_args, get_type_hints

from trainer.errors import TrainerError
from trainer.formats.canonical import Content
from trainer.formats.extra import as_text

Method = Literal["random", "length", "turns", "label", "system", "column", "file", "back", "none"]
NAME = re.compile(r"[a-z][a-z0-9_-]{0,29}")
TRAIN = "train"  # the rest
NOT_RANDOM = ("file", "back", "none")
BINS = 10  # lengths are stratified by decile
MAX_TURNS = 8
FIX = 'Use {"method": "random", "shares": {"test": 0.1}, "seed": 42}.'


@dataclass(frozen=True, kw_only=True)
class SplitPlan:
    """How rows are split.

    random: at random. length, turns, label, system: at random, stratified by length, number of answers, label or system
    message. column: stratified by the value of the upload's `column`. file: the rows of a second file become the split
    `name`. back: the rows of the split `name` return to train. none: removes all splits.
    Existing splits stay as they are, and new ones are drawn from the other rows. An existing split of the same name
    is an error, unless the plan is to `replace` it.
    """

    method: Method = "random"
    shares: dict[str, float] = field(default_factory=dict)
    seed: int = 42
    name: str = "test"
    column: str = ""
    drop_overlap: bool = False  # remove training rows that the second file contains too
    replace: bool = False

    @classmethod
    def from_dict(cls, data: Any) -> "SplitPlan":
        """Raises TrainerError(user_config) for an unusable plan."""
        if not isinstance(data, dict) or data.keys() - get_type_hints(cls).keys():
            raise TrainerError("user_config", "The splits cannot be read.", FIX)
        plan = cls(**data)
        if problem := plan.problem():
            raise TrainerError("user_config", problem, FIX)
        return plan

    def problem(self) -> str:
        """What is wrong with the plan; "" if nothing is."""
        if self.method not in get_args(Method):
            return f"There is no way to split called {self.method!r:.40}."
        if bad := [name for name in self.names if not NAME.fullmatch(str(name)) or name == TRAIN]:
            return f"{bad[0]!r:.40} cannot name a split: use small letters and digits, and not “train”."
        if self.method in NOT_RANDOM:
            return ""
        if (self.method == "column") != bool(self.column) or not isinstance(self.column, str):
            return "The name of a column and the method column belong together."
        shares = list(self.shares.values())
        if not shares or not all(isinstance(one, (int, float)) and 0 < one < 1 for one in shares):
            return "Each split needs a share between 0 and 1."
        return "" if sum(shares) < 1 - 1e-9 else "The shares leave no rows to learn from."

    @property
    def names(self) -> list[str]:
        """The splits it makes or takes back."""
        if self.method in NOT_RANDOM:
            return [self.name] if self.method != "none" else []
        return list(self.shares)

    def releases(self, name: str | None) -> bool:
        """Whether the rows of this split can be split anew."""
        if name in (None, TRAIN) or self.method == "none":
            return True
        return (self.replace or self.method == "back") and name in self.names

    def refuse_clash(self, there: Collection[str]) -> None:
        """Raises TrainerError(dataset_invalid) if the plan conflicts with existing splits."""
        if self.method == "back" and self.name not in there:
            raise TrainerError("dataset_invalid", f"There is no split {self.name}.", "Take back one that is there.")
        if clash := [name for name in self.names if name in there and not self.releases(name)]:
            fix = 'Give the new one another name, or say "replace": true.'
            raise TrainerError("dataset_invalid", f"There is a split {clash[0]} already, and it stays.", fix)


def stratum(content: Content, plan: SplitPlan) -> int | float | str:
    """The value that splits are stratified by."""
    method = plan.method
    if method == "column":
        return _number_or_text(content.extra.get(plan.column, ""))
    texts = [message["content"] or "" for one in content.conversations() for message in one]
    if method == "length":
        return len(content.text or "") + sum(map(len, texts))
    if method == "turns":
        answers = sum(message["role"] == "assistant" for message in content.messages)
        return min(int(answers), MAX_TURNS)
    if method == "label":
        return int(bool(content.label))
    if method == "system":
        first = next(iter([*content.messages, *content.prompt]), {"role": "", "content": ""})
        text = first["content"] if first["role"] == "system" else ""
        return hashlib.sha256((text or "").encode()).hexdigest()[:8]
    return 0


def _number_or_text(value: Any) -> float | str:
    """Numbers in tables are text."""
    text = as_text(value)
    try:
        number = float(text)
    except ValueError:
        return text
    return number if math.isfinite(number) else text


def assign(
    rows: Iterable[tuple[str, int | float | str]], plan: SplitPlan, *, frozen: Collection[str] = ()
) -> dict[str, str]:
    """The held-out split of each drawn content id, from content ids and their strata.

    `frozen`: contents that are in a split already. Their copies are not drawn, but count in the shares.
    Groups of copies are ordered by stratum and seeded hash, and each split takes one whenever its share is due: every
    stratum contributes its share, and equal seeds give equal splits.
    Raises TrainerError(dataset_invalid) if there are too few different rows.
    """
    counts: Counter[str] = Counter()
    values: dict[str, int | float | str] = {}
    total = 0
    for content_id, value in rows:
        total += 1
        if content_id in frozen:
            continue
        counts[content_id] += 1
        values[content_id] = value
    if len(counts) <= len(plan.shares):
        text = f"{len(counts)} different rows cannot be divided into {len(plan.shares) + 1} parts."
        raise TrainerError("dataset_invalid", text, "Add rows, or make fewer splits.")
    if plan.method == "column" and not any(value != "" for value in values.values()):
        text = f"No row has anything in the column {plan.column!r:.80}."
        raise TrainerError("dataset_invalid", text, "Choose a column that the upload had.")
    if plan.method == "length" or _is_numeric(values):
        values = _deciles(values)
    order = sorted(counts, key=lambda content_id: (str(values[content_id]), _seeded_hash(content_id, plan.seed)))
    shares = {name: share * (total / counts.total()) for name, share in plan.shares.items()}
    if sum(shares.values()) >= 1:
        text = f"{counts.total():,} rows are in no split yet; the shares would leave none of them to learn from."
        raise TrainerError("dataset_invalid", text, "Make the split smaller, or take another one back first.")
    found = dict(_deal(order, counts, shares))
    _fill_empty(found, order, plan)
    return found


def _deal(order: list[str], counts: Counter[str], shares: dict[str, float]) -> Iterator[tuple[str, str]]:
    due = dict.fromkeys(shares, 0.5)
    for one in order:
        size = counts[one]
        for name, share in shares.items():
            due[name] += share * size
        name = max(due, key=lambda part: due[part])
        if due[name] >= size:
            due[name] -= size
            yield one, name


def _fill_empty(found: dict[str, str], order: list[str], plan: SplitPlan) -> None:
    """Give every requested split at least one row, however small its share."""
    free = sorted((one for one in order if one not in found), key=lambda one: _seeded_hash(one, plan.seed))
    for name in plan.shares:
        if name not in found.values() and len(free) > 1:
            found[free.pop()] = name


def _seeded_hash(content_id: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}:{content_id}".encode()).digest()


def _is_numeric(values: dict[str, int | float | str]) -> bool:
    """Whether the values are numbers with too many different ones for a stratum each."""
    return len(set(values.values())) > BINS and not any(isinstance(value, str) for value in values.values() if value)


def _deciles(values: dict[str, int | float | str]) -> dict[str, int | float | str]:
    """Numbers as the decile of their rank; rows without one come first."""
    ordered = sorted(values, key=lambda one: (values[one] or 0, one))
    return {one: at * BINS // len(ordered) for at, one in enumerate(ordered)}


class SplitCounts:
    """Counts rows per split, and training rows whose content is also held out."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._names: dict[str, int] = {}
        self._seen: dict[str, int] = {}
        self._rows: Counter[str] = Counter()

    def add(self, content_id: str, name: str | None) -> None:
        if name is None:
            return
        self.counts[name] += 1
        self._seen[content_id] = self._seen.get(content_id, 0) | 1 << self._names.setdefault(name, len(self._names))
        self._rows[content_id] += name == TRAIN

    @property
    def overlap(self) -> int:
        """Training rows whose content is in another split too."""
        return sum(self._rows[one] for one, bits in self._seen.items() if bits.bit_count() > 1)
