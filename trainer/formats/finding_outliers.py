"""Findings about outliers: rows unusual in length or in script."""

from array import array
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from trainer.formats.finding_groups import Finding
from trainer.formats.finding_texts import trained_answers
from trainer.formats.scripts import NAMES
from trainer.formats.searching import RowText

TIMES_MEDIAN = 20  # ratio to the median, in either direction
MIN_LONG_ROW = 4000  # characters; shorter rows are never too long
MAX_SHORT_ANSWER = 20  # characters; longer answers are never too short
MAX_OUTLIERS = 0.03  # of the rows; anything more frequent is not an outlier
MIN_ROWS = 30  # below that the median says little


class Outliers:
    """Collects lengths and scripts; outliers are known once all rows were added."""

    def __init__(self) -> None:
        self._rows, self._answers, self._scripts = array("I"), array("I"), array("B")

    def add(self, row_text: RowText) -> None:
        texts = [text for _, text in row_text.texts]
        answers = [one["content"] or "" for one in trained_answers(row_text.row) if not one.get("tool_calls")]
        self._rows.append(min(sum(map(len, texts)), 2**32 - 1))
        self._answers.append(min((len(one) for one in answers), default=0))
        self._scripts.append(row_text.script)

    def finish(self) -> Iterator[Finding]:
        rows, answers = np.frombuffer(self._rows, np.uint32), np.frombuffer(self._answers, np.uint32)
        scripts = np.frombuffer(self._scripts, np.uint8)
        if len(rows) < MIN_ROWS:
            return
        usual = int(np.median(rows))
        for row in _if_rare((rows > TIMES_MEDIAN * usual) & (rows > MIN_LONG_ROW)):
            yield row + 1, "long_row", f"{rows[row]:,} characters; half of all rows have at most {usual:,}"
        lengths = answers[answers > 0]
        usual = int(np.median(lengths)) if len(lengths) else 0
        for row in _if_rare(
            (answers > 0) & (answers.astype(np.int64) * TIMES_MEDIAN < usual) & (answers <= MAX_SHORT_ANSWER)
        ):
            yield row + 1, "short_answer", f"{_characters(answers[row])}; half of all answers have more than {usual:,}"
        counts = np.bincount(scripts[scripts > 0], minlength=len(NAMES))
        most = int(counts.argmax())
        for row in _if_rare((scripts > 0) & (scripts != most)):
            yield row + 1, "other_script", f"written in {NAMES[scripts[row]]}, most rows in {NAMES[most]}"


def _characters(count: int) -> str:
    return "1 character" if count == 1 else f"{count:,} characters"


def _if_rare(which: NDArray[np.bool_]) -> list[int]:
    """The positions, or none if they are too many to be outliers."""
    found: list[int] = np.flatnonzero(which).tolist()
    return found if len(found) <= max(1, MAX_OUTLIERS * len(which)) else []
