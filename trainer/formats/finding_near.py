"""Finds rows with almost the same words: MinHash signatures of word triples, compared where a band of them is equal.

Broder 1997 for the signatures, Leskovec, Rajaraman and Ullman (Mining of Massive Datasets, section 3.4) for the bands.
"""

import re
import zlib
from array import array
from collections.abc import Iterator
from operator import itemgetter

import numpy as np
from numpy.typing import NDArray

from trainer.formats.finding_groups import Finding, Numbers, Splits, grouped
from trainer.formats.searching import Said

HASHES = 48  # values of a signature; two bytes each are what a row costs in memory
BAND = 4  # values that must be equal to be compared: as many as fill 64 bits
LEAST_ALIKE = 38 / 48  # equal values; of rows that share 60 % of their triples 1 in 200 comes so far
LEAST_WORDS = 12  # of shorter rows one other word is another row
WORDS_AT_ONCE = 150_000
NUMBER = 8  # bytes
MOST_WORDS_KNOWN = 300_000
PAIRS_AT_ONCE = 200_000

_SIGNS = re.compile(r"[^\w\x00-\x7f]+")  # beyond ASCII
_ODD = np.random.default_rng(20240229).integers(1, 2**63, HASHES, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
_NEXT, _AFTER = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F)


class _Words(dict[bytes, bytes]):
    """The number of each word in 64 bits, the same in every process; those of the last rows are remembered."""

    def __init__(self, encoding: str) -> None:
        super().__init__()
        self._encoding = encoding
        self._parted = bytes(_part(one, encoding) for one in range(256))

    def __missing__(self, word: bytes) -> bytes:
        if len(self) > MOST_WORDS_KNOWN:
            self.clear()
        number = self[word] = (zlib.crc32(word.decode(self._encoding).encode()) + 1).to_bytes(8, "little")
        return number

    def numbers(self, text: str) -> bytes:
        r"""Of all that matches \w+ in the text in small letters, found in a quarter of that pattern's time."""
        words = text.encode(self._encoding).translate(self._parted).split()
        return b"".join(itemgetter(*words)(self)) if len(words) > 1 else b"".join([self[word] for word in words])


def _part(byte: int, encoding: str) -> int:
    """What becomes of a byte: a small letter, or a space where it is no part of a word."""
    if byte >= 0x80 and encoding == "utf-8":
        return byte
    sign = bytes([byte]).decode(encoding)
    return sign.lower().encode(encoding)[0] if re.match(r"\w", sign) else ord(" ")


class NearDuplicates:
    """Rows with almost the words of an earlier row of the same split, and of a row that is learnt from."""

    def __init__(self, splits: Splits) -> None:
        self._splits = splits
        self._latin, self._others = _Words("latin-1"), _Words("utf-8")
        self._words = bytearray()  # numbers of those in the rows whose signatures are to come
        self._starts: list[int] = []
        self._signatures = array("H")
        self._short = array("B")

    def add(self, said: Said) -> None:
        numbers = self._numbers(said.words)
        words = len(numbers) // NUMBER
        self._short.append(words < LEAST_WORDS)
        self._starts.append(len(self._words) // NUMBER)
        self._words += numbers if words > 2 else bytes(3 * NUMBER)
        if len(self._words) > WORDS_AT_ONCE * NUMBER:
            self._sign()

    def _numbers(self, text: str) -> bytes:
        try:
            return self._latin.numbers(text)
        except UnicodeEncodeError:
            return self._others.numbers(_SIGNS.sub(" ", text.lower()))

    def _sign(self) -> None:
        """The signatures of the rows that were gathered: of each, the smallest of its triples' hashes, HASHES times."""
        if not self._starts:
            return
        words = np.frombuffer(self._words, np.uint64)
        triples = words.copy()
        triples[:-1] += words[1:] * _NEXT
        triples[:-2] += words[2:] * _AFTER
        triples ^= triples >> np.uint64(31)
        triples *= np.uint64(0xD6E8FEB86659FD93)
        triples ^= triples >> np.uint64(32)
        whole = np.ones(len(words), bool)  # the last two words of a row begin no triple of its own
        ends = np.array([*self._starts[1:], len(words)])
        whole[ends - 1] = whole[ends - 2] = False
        before = np.cumsum(whole) - whole
        starts, triples = before[self._starts], triples[whole]
        signed = np.empty((len(starts), HASHES), np.uint16)
        for place, odd in enumerate(_ODD):
            least = np.minimum.reduceat((triples * odd) >> np.uint64(32), starts)
            signed[:, place] = (least * np.uint64(0x9E3779B1) >> np.uint64(13)).astype(np.uint16)
        del words
        self._signatures.frombytes(signed.tobytes())
        self._words, self._starts = bytearray(), []

    def finish(self, copies: NDArray[np.bool_]) -> Iterator[Finding]:
        """`copies`: rows that say exactly what another says, of which nothing more is to be told."""
        self._sign()
        signed = np.frombuffer(self._signatures, np.uint16).reshape(-1, HASHES)
        codes = self._splits.codes
        rows = np.flatnonzero((np.frombuffer(self._short, np.uint8) == 0) & ~copies)
        likest, across = _likest(signed, codes, rows)
        for row in np.flatnonzero(across >= 0).tolist():
            other = int(across[row])
            told = f"{_likeness(signed, row, other)} row {other + 1:,} of {self._splits.names[codes[other]]}"
            yield row + 1, "nearly_in_two_splits", told
        for row, other in _kept_first(signed, likest):
            yield row + 1, "near_duplicate", f"{_likeness(signed, row, other)} row {other + 1:,}"


def _likest(
    signed: NDArray[np.uint16], codes: NDArray[np.uint8], rows: Numbers
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each row one before it in its own split, and one of a split before it, that is like it; -1 for none."""
    own, across = np.full(len(signed), -1), np.full(len(signed), -1)
    if not len(rows):
        return own, across
    chosen, parts = signed[rows], codes[rows]
    bands = np.ascontiguousarray(chosen).view(np.uint64).reshape(len(rows), HASHES // BAND)
    for band in range(HASHES // BAND):
        found = grouped(np.ascontiguousarray(bands[:, band]), parts)
        order, before = rows[found.order], rows[np.roll(found.order, 1)]
        _note(signed, order, rows[found.own], own)
        _note(signed, order, np.where(found.order != found.own, before, order), own)
        _note(signed, order, np.where(parts[found.order] != parts[found.first], rows[found.first], order), across)
    return own, across


def _note(signed: NDArray[np.uint16], rows: Numbers, others: Numbers, noted: NDArray[np.int64]) -> None:
    """Note for each row the other one, where they are two and alike, and none smaller is noted."""
    two = np.flatnonzero(rows != others)
    for start in range(0, len(two), PAIRS_AT_ONCE):
        some = two[start : start + PAIRS_AT_ONCE]
        one, other = rows[some], others[some]
        alike = (signed[one] == signed[other]).mean(axis=1) >= LEAST_ALIKE
        one, other = one[alike], other[alike]
        better = (noted[one] < 0) | (other < noted[one])
        noted[one[better]] = other[better]


def _kept_first(signed: NDArray[np.uint16], likest: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Rows that are like one that stays when they go: so that no chain of small differences removes a row alone."""
    stays: dict[int, int] = {}
    for row in np.flatnonzero(likest >= 0).tolist():
        other = int(likest[row])
        kept = stays.get(other, other)
        if kept == other or _alike(signed, row, kept) >= LEAST_ALIKE:
            stays[row] = kept
            yield row, kept


def _alike(signed: NDArray[np.uint16], row: int, other: int) -> float:
    return float((signed[row] == signed[other]).mean())


def _likeness(signed: NDArray[np.uint16], row: int, other: int) -> str:
    share = _alike(signed, row, other)
    return "has the words of" if share == 1 else f"about {share:.0%} like"
