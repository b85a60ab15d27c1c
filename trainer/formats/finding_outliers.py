"""Findings about rows that are unlike nearly all others: in length, and in the letters they are written in."""

from array import array
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from trainer.formats.finding_groups import Finding
from trainer.formats.finding_texts import taught
from trainer.formats.searching import Said

TIMES = 20  # as long, or as short, as the median
LONG = 4000  # characters; below that nothing is too long
SHORT = 20  # characters; above that nothing is too short
MOST_OUTLIERS = 0.03  # of the rows; what is more often than that is no exception
LEAST_ROWS = 30  # of fewer it cannot be told what is usual
SAMPLE = 1500  # characters of a row by which its letters are known
FEW_LETTERS = 6

# Blocks of Unicode that are one script, or are written together: pairs of first and last letters.
SCRIPTS = {
    "Latin": "A-Za-z\u00c0-\u024f\u1e00-\u1eff",
    "Greek": "\u0370-\u03ff\u1f00-\u1fff",
    "Cyrillic": "\u0400-\u052f",
    "Armenian": "\u0530-\u058f",
    "Hebrew": "\u0590-\u05ff",
    "Arabic": "\u0600-\u06ff\u0750-\u077f\u08a0-\u08ff",
    "Indic": "\u0900-\u0dff",
    "Thai and Lao": "\u0e00-\u0eff",
    "Georgian": "\u10a0-\u10ff",
    "Ethiopic": "\u1200-\u139f",
    "Japanese": "\u3040-\u30ff\u31f0-\u31ff",
    "Chinese": "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff",
    "Korean": "\u1100-\u11ff\uac00-\ud7af",
}
_NAMES = ["", *SCRIPTS]
_LATIN = _NAMES.index("Latin")
_CHINESE, _JAPANESE = _NAMES.index("Chinese"), _NAMES.index("Japanese")


def _scripts() -> NDArray[np.uint8]:
    """The number of the script of each character of 16 bits."""
    found = np.zeros(2**16, np.uint8)
    for number, blocks in enumerate(SCRIPTS.values(), 1):
        for first, last in zip(blocks[::3], blocks[2::3], strict=True):
            found[ord(first) : ord(last) + 1] = number
    return found


_SCRIPTS = _scripts()
_NO_LETTERS = bytes(one for one in range(128) if not chr(one).isalpha())


_NOT_LATIN = bytes(one for one in range(256) if _SCRIPTS[one] != _LATIN)


def script_of(text: str) -> int:
    """The number of the script that most letters are of; 0 where there are too few."""
    if text.isascii():
        return _LATIN if len(text[:200].encode().translate(None, _NO_LETTERS)) >= FEW_LETTERS else 0
    try:
        return _LATIN if len(text.encode("latin-1").translate(None, _NOT_LATIN)) >= FEW_LETTERS else 0
    except UnicodeEncodeError:
        pass  # of other scripts too
    characters = np.frombuffer(text.encode("utf-16-le"), np.uint16)
    counts = np.bincount(_SCRIPTS[characters], minlength=len(_NAMES))
    counts[0] = 0
    if counts[_JAPANESE]:  # is written with Chinese characters as well
        counts[_JAPANESE] += counts[_CHINESE]
    number = int(counts.argmax())
    return number if counts[number] >= FEW_LETTERS else 0


class Outliers:
    """Rows unlike the others; what is usual is known when all were seen."""

    def __init__(self) -> None:
        self._rows, self._answers, self._scripts = array("I"), array("I"), array("B")

    def add(self, said: Said) -> None:
        texts = [text for _, text in said.texts]
        answers = [one["content"] or "" for one in taught(said.row) if not one.get("tool_calls")]
        self._rows.append(min(sum(map(len, texts)), 2**32 - 1))
        self._answers.append(min((len(one) for one in answers), default=0))
        share = SAMPLE // max(1, len(texts)) + 1
        self._scripts.append(script_of("".join(text[:share] for text in texts[:SAMPLE])))

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
        counts = np.bincount(scripts[scripts > 0], minlength=len(_NAMES))
        most = int(counts.argmax())
        for row in _few((scripts > 0) & (scripts != most)):
            yield row + 1, "other_script", f"written in {_NAMES[scripts[row]]}, most rows in {_NAMES[most]}"


def _characters(count: int) -> str:
    return "1 character" if count == 1 else f"{count:,} characters"


def _few(which: NDArray[np.bool_]) -> list[int]:
    """The places, when they are exceptions."""
    found: list[int] = np.flatnonzero(which).tolist()
    return found if len(found) <= max(1, MOST_OUTLIERS * len(which)) else []
