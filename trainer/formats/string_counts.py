"""Counts the strings in lines of JSON by whole blocks, to prove that a reader has lost none."""

import numpy as np
from numpy.typing import NDArray

QUOTE, BACKSLASH, LINE_END = b'"\\\n'
SEPARATORS = (b"\xe2\x80\xa8", b"\xe2\x80\xa9")  # U+2028 and U+2029, which the check counts
UNSURE = -1

Bytes = NDArray[np.uint8]
Places = NDArray[np.intp]


class StringCounts:
    """The number of strings in each line of a block of JSON lines: a reader that kept as many has lost none.

    A string has two unescaped quotes. A quote after several backslashes may or may not be escaped, so such lines need a
    closer look, and so do lines with U+2028 or U+2029.
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
        """For all lines together; UNSURE if one of them needs a closer look."""
        if any(len(places) for places in self._odd):
            return UNSURE
        return int(np.count_nonzero(self._quotes) - np.count_nonzero(self._escaped)) // 2

    def by_line(self) -> list[int]:
        """For each line; UNSURE if it needs a closer look."""
        around = self._quotes.copy()
        around[1:] ^= self._escaped
        ends = np.flatnonzero(self._text == LINE_END)
        counts = np.diff(np.searchsorted(np.flatnonzero(around), ends), prepend=0) // 2
        for places in self._odd:
            counts[np.searchsorted(ends, places)] = UNSURE
        found: list[int] = counts.tolist()
        return found


def _separators(block: bytes, text: Bytes) -> list[Places]:
    """Their offsets."""
    if SEPARATORS[0][:1] not in block:
        return []
    begins = np.flatnonzero(text == SEPARATORS[0][0])
    last = text.take(begins + 2, mode="clip")
    found = (text.take(begins + 1, mode="clip") == SEPARATORS[0][1]) & (last | 1 == SEPARATORS[1][2])
    return [begins[found]]
