"""Findings about rows that share something: exact copies, repeated questions, very common answers."""

import hashlib
from array import array
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.formats.canonical import Row, canonical_bytes
from trainer.formats.finding_texts import trained_answers
from trainer.formats.splitting import TRAIN

IntArray = NDArray[np.int64]
Finding = tuple[int, str, str]  # row number from 1, kind, detail

MIN_ANSWER_LENGTH = 20  # characters; shorter answers such as labels are meant to be common
MAX_SPLITS = 250
NO_KEY = 0


@dataclass(frozen=True)
class Groups:
    """Rows ordered so that equal keys are adjacent, with the training split first in each group.

    At each position: `first` is the first row of the group, `first_in_split` the first one of the same group and split,
    `sizes` the size of the group.
    """

    order: IntArray
    first: IntArray
    first_in_split: IntArray
    sizes: IntArray


def group_rows(keys: NDArray[np.uint64], splits: NDArray[np.uint8]) -> Groups:
    order = np.lexsort((splits, keys))
    ordered_keys, ordered_splits = keys[order], splits[order]
    is_start = np.ones(len(order), bool)
    is_start[1:] = ordered_keys[1:] != ordered_keys[:-1]
    is_start_in_split = is_start.copy()
    is_start_in_split[1:] |= ordered_splits[1:] != ordered_splits[:-1]
    group = np.cumsum(is_start) - 1
    sizes = np.bincount(group, minlength=1)[group] if len(order) else group
    return Groups(order, order[_starts(is_start)], order[_starts(is_start_in_split)], sizes)


def _starts(is_start: NDArray[np.bool_]) -> IntArray:
    """For each position, where its run begins."""
    return np.maximum.accumulate(np.where(is_start, np.arange(len(is_start)), 0))


class Splits:
    """The split of each row as a small integer; 0 is the training split."""

    def __init__(self) -> None:
        self.names = [TRAIN]
        self._numbers = {TRAIN: 0}
        self._codes = array("B")

    def add(self, name: str | None) -> None:
        number = self._numbers.setdefault(name or TRAIN, min(len(self.names), MAX_SPLITS))
        if number == len(self.names):
            self.names.append(name or TRAIN)
        self._codes.append(number)

    @property
    def codes(self) -> NDArray[np.uint8]:
        return np.frombuffer(self._codes, np.uint8)


class Copies:
    """Exact copies, within a split and across splits, and equal questions with different answers."""

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
        found = group_rows(contents, codes)
        across = codes[found.order] != codes[found.first]
        for row, first in _pairs(found, across, found.first):
            yield row + 1, "in_two_splits", f"row {first + 1:,} of {names[codes[first]]} has the same content"
        for row, first in _pairs(found, found.order != found.first_in_split, found.first_in_split):
            yield row + 1, "repeated", f"repeats row {first + 1:,}"
        yield from self._answered_differently(contents)
        yield from self._common_answers()

    def copies(self) -> NDArray[np.bool_]:
        """Which rows repeat an earlier row, or one of the training split."""
        found = group_rows(np.frombuffer(self._contents, np.uint64), self._splits.codes)
        repeats = np.zeros(len(found.order), bool)
        repeats[found.order] = found.order != found.first
        return repeats

    def _answered_differently(self, contents: NDArray[np.uint64]) -> Iterator[Finding]:
        """Every row whose question also has another answer, with a row that gives it."""
        questions = np.frombuffer(self._questions, np.uint64)
        found = group_rows(questions, np.zeros(len(questions), np.uint8))
        differs = (contents[found.order] != contents[found.first]) & (questions[found.order] != NO_KEY)
        reported: set[int] = set()
        for row, first in _pairs(found, differs, found.first):
            if first not in reported:
                reported.add(first)
                yield first + 1, "answered_differently", f"row {row + 1:,} asks the same"
            yield row + 1, "answered_differently", f"row {first + 1:,} asks the same"

    def _common_answers(self) -> Iterator[Finding]:
        answers = np.frombuffer(self._answers, np.uint64)
        found = group_rows(answers, np.zeros(len(answers), np.uint8))
        common = (answers[found.order] != NO_KEY) & (found.sizes >= max(10, len(answers) // 200))
        sizes = found.sizes[common].tolist()
        for (row, first), size in zip(_pairs(found, common, found.first), sizes, strict=True):
            yield row + 1, "common_answer", f"{size:,} rows have this answer, row {first + 1:,} is the first"


def _pairs(found: Groups, mask: NDArray[np.bool_], others: IntArray) -> Iterator[tuple[int, int]]:
    return zip(found.order[mask].tolist(), others[mask].tolist(), strict=True)


def _key(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big") or 1


def _question_key(row: Row) -> int:
    """A hash of everything before the last answer; NO_KEY for kinds that may have several answers to one question."""
    if row.kind != "chat" or row.messages[-1]["role"] != "assistant":
        return NO_KEY
    return _key(canonical_bytes([row.messages[:-1], row.tools]))


def _answer_key(row: Row) -> int:
    answers = trained_answers(row)
    text = (answers[-1]["content"] or "").strip() if answers else ""
    return _key(text.encode()) if len(text) >= MIN_ANSWER_LENGTH else NO_KEY
