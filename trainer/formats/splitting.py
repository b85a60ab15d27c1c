"""Named parts of a dataset: rows go into them by seed and share, evenly over what they are like, copies together."""

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
TRAIN = "train"  # what is left
NOT_DRAWN = ("file", "back", "none")
BINS = 10  # lengths are told apart by tenths of the rows
MOST_TURNS = 8
FIX = 'Use {"method": "random", "shares": {"test": 0.1}, "seed": 42}.'


@dataclass(frozen=True, kw_only=True)
class SplitPlan:
    """How rows are divided.

    random: by chance; length, turns, label, system: by chance, in the same shares of every length, number of answers,
    label or system message; column: the same for what `column` of the upload says; file: the rows of a second file are
    the part `name`; back: the rows of the part `name` are to be learnt from; none: all rows are one again.
    Parts that are there stay as they are: new ones are made of the rows in none of them. One of the same name is in the
    way, unless the plan is to `replace` it.
    """

    method: Method = "random"
    shares: dict[str, float] = field(default_factory=dict)
    seed: int = 42
    name: str = "test"
    column: str = ""
    drop_overlap: bool = False  # leave out of the rows to learn from what the second file has as well
    replace: bool = False

    @classmethod
    def from_dict(cls, data: Any) -> "SplitPlan":
        """Raises TrainerError(user_config) with what cannot be used."""
        if not isinstance(data, dict) or data.keys() - get_type_hints(cls).keys():
            raise TrainerError("user_config", "The splits cannot be read.", FIX)
        plan = cls(**data)
        if problem := plan.problem():
            raise TrainerError("user_config", problem, FIX)
        return plan

    def problem(self) -> str:
        """What is wrong with it, empty when nothing is."""
        if self.method not in get_args(Method):
            return f"There is no way to split called {self.method!r:.40}."
        if bad := [name for name in self.names if not NAME.fullmatch(str(name)) or name == TRAIN]:
            return f"{bad[0]!r:.40} cannot name a split: use small letters and digits, and not “train”."
        if self.method in NOT_DRAWN:
            return ""
        if (self.method == "column") != bool(self.column) or not isinstance(self.column, str):
            return "The name of a column and the method column belong together."
        shares = list(self.shares.values())
        if not shares or not all(isinstance(one, (int, float)) and 0 < one < 1 for one in shares):
            return "Each split needs a share between 0 and 1."
        return "" if sum(shares) < 1 - 1e-9 else "The shares leave no rows to learn from."

    @property
    def names(self) -> list[str]:
        """Of the parts that it makes, or takes back."""
        if self.method in NOT_DRAWN:
            return [self.name] if self.method != "none" else []
        return list(self.shares)

    def gives_up(self, name: str | None) -> bool:
        """Whether the rows of this part are free again."""
        if name in (None, TRAIN) or self.method == "none":
            return True
        return (self.replace or self.method == "back") and name in self.names

    def refuse_clash(self, there: Collection[str]) -> None:
        """Raises TrainerError(dataset_invalid) where it does not go with the parts that are `there`."""
        if self.method == "back" and self.name not in there:
            raise TrainerError("dataset_invalid", f"There is no split {self.name}.", "Take back one that is there.")
        if clash := [name for name in self.names if name in there and not self.gives_up(name)]:
            fix = 'Give the new one another name, or say "replace": true.'
            raise TrainerError("dataset_invalid", f"There is a split {clash[0]} already, and it stays.", fix)


def likeness(content: Content, plan: SplitPlan) -> int | float | str:
    """What rows are to be evenly divided by."""
    method = plan.method
    if method == "column":
        return _number_or_text(content.extra.get(plan.column, ""))
    said = [message["content"] or "" for one in content.conversations() for message in one]
    if method == "length":
        return len(content.text or "") + sum(map(len, said))
    if method == "turns":
        answers = sum(message["role"] == "assistant" for message in content.messages)
        return min(int(answers), MOST_TURNS)
    if method == "label":
        return int(bool(content.label))
    if method == "system":
        first = next(iter([*content.messages, *content.prompt]), {"role": "", "content": ""})
        text = first["content"] if first["role"] == "system" else ""
        return hashlib.sha256((text or "").encode()).hexdigest()[:8]
    return 0


def _number_or_text(value: Any) -> float | str:
    """A table says its numbers in text."""
    text = as_text(value)
    try:
        number = float(text)
    except ValueError:
        return text
    return number if math.isfinite(number) else text


def assign(
    rows: Iterable[tuple[str, int | float | str]], plan: SplitPlan, *, frozen: Collection[str] = ()
) -> dict[str, str]:
    """Content ids and what they are like → the part of each that is not to be learnt from.

    What is `frozen` is in a part already: no row that says the same is drawn, but shares are those of all rows.

    Groups of copies are taken in the order of their likeness and a seeded hash, and each part takes one whenever its
    share is due: so every stretch of likeness gives its share, and the same seed the same parts.
    Raises TrainerError(dataset_invalid) when there are too few different rows.
    """
    counts: Counter[str] = Counter()
    values: dict[str, int | float | str] = {}
    whole = 0
    for content_id, value in rows:
        whole += 1
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
    if plan.method == "length" or _is_measured(values):
        values = _binned(values)
    order = sorted(counts, key=lambda one: (str(values[one]), _drawn(one, plan.seed)))
    shares = {name: share * (whole / counts.total()) for name, share in plan.shares.items()}
    if sum(shares.values()) >= 1:
        text = f"{counts.total():,} rows are in no split yet; the shares would leave none of them to learn from."
        raise TrainerError("dataset_invalid", text, "Make the split smaller, or take another one back first.")
    found = dict(_dealt(order, counts, shares))
    _fill_empty(found, order, plan)
    return found


def _dealt(order: list[str], counts: Counter[str], shares: dict[str, float]) -> Iterator[tuple[str, str]]:
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
    """Every part that was asked for gets a row, however small its share is."""
    free = sorted((one for one in order if one not in found), key=lambda one: _drawn(one, plan.seed))
    for name in plan.shares:
        if name not in found.values() and len(free) > 1:
            found[free.pop()] = name


def _drawn(content_id: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}:{content_id}".encode()).digest()


def _is_measured(values: dict[str, int | float | str]) -> bool:
    """Whether rows are told apart by a column of more different numbers than could be kept apart."""
    return len(set(values.values())) > BINS and not any(isinstance(value, str) for value in values.values() if value)


def _binned(values: dict[str, int | float | str]) -> dict[str, int | float | str]:
    """Lengths and other measures as the tenth of all rows they are in; those without one are the first."""
    ordered = sorted(values, key=lambda one: (values[one] or 0, one))
    return {one: at * BINS // len(ordered) for at, one in enumerate(ordered)}


class Parts:
    """Counts rows by part, and those whose content is in more than one."""

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
        """Rows to learn from whose content is in another part as well."""
        return sum(self._rows[one] for one, bits in self._seen.items() if bits.bit_count() > 1)
