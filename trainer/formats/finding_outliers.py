"""Findings about rows that are unlike nearly all others: in length, and in the letters they are written in."""

from array import array
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from trainer.formats.finding_groups import Finding
from trainer.formats.finding_texts import taught
from trainer.formats.scripts import NAMES
from trainer.formats.searching import Said

TIMES = 20  # as long, or as short, as the median
LONG = 4000  # characters; below that nothing is too long
SHORT = 20  # characters; above that nothing is too short
MOST_OUTLIERS = 0.03  # of the rows; what is more often than that is no exception
LEAST_ROWS = 30  # of fewer it cannot be told what is usual


class Outliers:
    """Rows unlike the others; what is usual is known when all were seen."""

    def __init__(self) -> None:
        self._rows, self._answers, self._scripts = array("I"), array("I"), array("B")

    def add(self, said: Said) -> None:
        texts = [text for _, text in said.texts]
        answers = [one["content"] or "" for one in taught(said.row) if not one.get("tool_calls")]
        self._rows.append(min(sum(map(len, texts)), 2**32 - 1))
        self._answers.append(min((len(one) for one in answers), default=0))
        self._scripts.append(said.script)

    def finish(self) -> Iterator[Finding]:
        rows, answers = np.frombuffer(self._rows, np.uint32), np.frombuffer(self._answers, np.uint32)
        scripts = np.frombuffer(self._scripts, np.uint8)
        if len(rows) < LEAST_ROWS:
            return
        usual = int(np.median(rows))
        for row in _few((rows > TIMES * usual) & (rows > LONG)):
            yield row + 1, "long_row", f"{rows[row]:,} characters; half of all rows have at most {usual:,}"
        said = answers[answers > 0]
        usual = int(np.median(said)) if len(said) else 0
        for row in _few((answers > 0) & (answers.astype(np.int64) * TIMES < usual) & (answers <= SHORT)):
            yield row + 1, "short_answer", f"{_characters(answers[row])}; half of all answers have more than {usual:,}"
        counts = np.bincount(scripts[scripts > 0], minlength=len(NAMES))
        most = int(counts.argmax())
        for row in _few((scripts > 0) & (scripts != most)):
            yield row + 1, "other_script", f"written in {NAMES[scripts[row]]}, most rows in {NAMES[most]}"


def _characters(count: int) -> str:
    return "1 character" if count == 1 else f"{count:,} characters"


def _few(which: NDArray[np.bool_]) -> list[int]:
    """The places, when they are exceptions."""
    found: list[int] = np.flatnonzero(which).tolist()
    return found if len(found) <= max(1, MOST_OUTLIERS * len(which)) else []
