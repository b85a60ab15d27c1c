"""Findings about rows that are the same in something: copies, questions asked again, answers given everywhere."""

import hashlib
from array import array
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.formats.canonical import Row, canonical_bytes
from trainer.formats.finding_texts import taught
from trainer.formats.splitting import TRAIN

Numbers = NDArray[np.int64]
Finding = tuple[int, str, str]  # number of the row from 1, kind, detail

LEAST_COMMON = 20  # characters: labels such as “yes” are meant to come often
MOST_SPLITS = 250
NO_KEY = 0


@dataclass(frozen=True)
class Groups:
    """Rows in an order in which equal keys stand together, rows to learn from first.

    first: for each place the row its group begins with; own: the first row of the same group and split.
    """

    order: Numbers
    first: Numbers
    own: Numbers
    sizes: Numbers


def grouped(keys: NDArray[np.uint64], splits: NDArray[np.uint8]) -> Groups:
    order = np.lexsort((splits, keys))
    ordered, parts = keys[order], splits[order]
    begins = np.ones(len(order), bool)
    begins[1:] = ordered[1:] != ordered[:-1]
    begins_own = begins.copy()
    begins_own[1:] |= parts[1:] != parts[:-1]
    group = np.cumsum(begins) - 1
    sizes = np.bincount(group, minlength=1)[group] if len(order) else group
    return Groups(order, order[_starts(begins)], order[_starts(begins_own)], sizes)


def _starts(begins: NDArray[np.bool_]) -> Numbers:
    """For each place, where the stretch that it lies in begins."""
    return np.maximum.accumulate(np.where(begins, np.arange(len(begins)), 0))


class Splits:
    """The split of each row as a small number: 0 for what is learnt from."""

    def __init__(self) -> None:
        self.names = [TRAIN]
        self._numbers = {TRAIN: 0}
        self._codes = array("B")

    def add(self, name: str | None) -> None:
        number = self._numbers.setdefault(name or TRAIN, min(len(self.names), MOST_SPLITS))
        if number == len(self.names):
            self.names.append(name or TRAIN)
        self._codes.append(number)

    @property
    def codes(self) -> NDArray[np.uint8]:
        return np.frombuffer(self._codes, np.uint8)


class Copies:
    """Rows that say exactly the same, in one split and in two; and those that ask the same and answer otherwise."""

    def __init__(self, splits: Splits) -> None:
        self._splits = splits
        self._contents, self._questions, self._answers = array("Q"), array("Q"), array("Q")

    def add(self, row: Row) -> None:
        self._contents.append(int(row.content_id, 16))
        self._questions.append(_question_key(row))
        self._answers.append(_answer_key(row))

    def finish(self) -> Iterator[Finding]:
        codes, names = self._splits.codes, self._splits.names
        contents = np.frombuffer(self._contents, np.uint64)
        found = grouped(contents, codes)
        across = codes[found.order] != codes[found.first]
        for row, first in _pairs(found, across, found.first):
            yield row + 1, "in_two_splits", f"row {first + 1:,} of {names[codes[first]]} says the same"
        for row, first in _pairs(found, found.order != found.own, found.own):
            yield row + 1, "repeated", f"says what row {first + 1:,} says"
        yield from self._answered_differently(contents)
        yield from self._common_answers()

    def copies(self) -> NDArray[np.bool_]:
        """Which rows say what an earlier one, or one of the part to learn from, says."""
        found = grouped(np.frombuffer(self._contents, np.uint64), self._splits.codes)
        again = np.zeros(len(found.order), bool)
        again[found.order] = found.order != found.first
        return again

    def _answered_differently(self, contents: NDArray[np.uint64]) -> Iterator[Finding]:
        """Each row of a question of which there is another answer, with one of those."""
        questions = np.frombuffer(self._questions, np.uint64)
        found = grouped(questions, np.zeros(len(questions), np.uint8))
        other = (contents[found.order] != contents[found.first]) & (questions[found.order] != NO_KEY)
        told: set[int] = set()
        for row, first in _pairs(found, other, found.first):
            if first not in told:
                told.add(first)
                yield first + 1, "answered_differently", f"row {row + 1:,} asks the same"
            yield row + 1, "answered_differently", f"row {first + 1:,} asks the same"

    def _common_answers(self) -> Iterator[Finding]:
        answers = np.frombuffer(self._answers, np.uint64)
        found = grouped(answers, np.zeros(len(answers), np.uint8))
        common = (answers[found.order] != NO_KEY) & (found.sizes >= max(10, len(answers) // 200))
        sizes = found.sizes[common].tolist()
        for (row, first), size in zip(_pairs(found, common, found.first), sizes, strict=True):
            yield row + 1, "common_answer", f"{size:,} rows have this answer, row {first + 1:,} is the first"


def _pairs(found: Groups, which: NDArray[np.bool_], others: Numbers) -> Iterator[tuple[int, int]]:
    return zip(found.order[which].tolist(), others[which].tolist(), strict=True)


def _key(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big") or 1


def _question_key(row: Row) -> int:
    """Of all before the last answer; none where several answers to one question are meant to be."""
    if row.kind != "chat" or row.messages[-1]["role"] != "assistant":
        return NO_KEY
    return _key(canonical_bytes([row.messages[:-1], row.tools]))


def _answer_key(row: Row) -> int:
    answers = taught(row)
    text = (answers[-1]["content"] or "").strip() if answers else ""
    return _key(text.encode()) if len(text) >= LEAST_COMMON else NO_KEY
