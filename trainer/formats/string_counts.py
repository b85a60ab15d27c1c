"""How many strings lines of JSON hold, counted in a whole block of them: a proof that a reader has lost none."""

import numpy as np
from numpy.typing import NDArray

QUOTE, BACKSLASH, LINE_END = b'"\\\n'
SEPARATORS = (b"\xe2\x80\xa8", b"\xe2\x80\xa9")  # U+2028 and U+2029, which are to be counted
UNSURE = -1

Bytes = NDArray[np.uint8]
Places = NDArray[np.intp]


class StringCounts:
    """The strings in a block of whole lines of JSON: a reader that kept as many of a line has lost none of it.

    A string has two quotes that are not escaped. Whether one behind several backslashes is depends on how many those
    are: such lines need a closer look, and so do those with separators of lines that end no line here.
    """

    def __init__(self, block: bytes) -> None:
        text = np.frombuffer(block, np.uint8)
        slashes = text == BACKSLASH
        self._text, self._quotes = text, text == QUOTE
        self._escaped = self._quotes[1:] & slashes[:-1]
        several = self._escaped[1:] & slashes[:-2]
        self._odd = [np.flatnonzero(several) + 2] if several.any() else []
        self._odd += _separators(block, text)

    @property
    def total(self) -> int:
        """Of all lines together, UNSURE where one of them needs a closer look."""
        if any(len(places) for places in self._odd):
            return UNSURE
        return int(np.count_nonzero(self._quotes) - np.count_nonzero(self._escaped)) // 2

    def by_line(self) -> list[int]:
        """Of each line, or UNSURE."""
        around = self._quotes.copy()
        around[1:] ^= self._escaped
        ends = np.flatnonzero(self._text == LINE_END)
        counts = np.diff(np.searchsorted(np.flatnonzero(around), ends), prepend=0) // 2
        for places in self._odd:
            counts[np.searchsorted(ends, places)] = UNSURE
        found: list[int] = counts.tolist()
        return found


def _separators(block: bytes, text: Bytes) -> list[Places]:
    """Where they begin."""
    if SEPARATORS[0][:1] not in block:
        return []
    begins = np.flatnonzero(text == SEPARATORS[0][0])
    last = text.take(begins + 2, mode="clip")
    found = (text.take(begins + 1, mode="clip") == SEPARATORS[0][1]) & (last | 1 == SEPARATORS[1][2])
    return [begins[found]]
