"""Finds rows with almost the same words: MinHash signatures of word triples, compared where a band of them is equal.

Broder 1997 for the signatures, Leskovec, Rajaraman and Ullman (Mining of Massive Datasets, section 3.4) for the bands.
"""

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.formats.finding_groups import Finding, Numbers, Splits, grouped
from trainer.formats.searching import Said

HASHES = 48  # values of a signature; two bytes each are what a row costs in memory
BAND = 4  # values that must be equal to be compared: as many as fill 64 bits
LEAST_ALIKE = 38 / 48  # equal values; of rows that share 60 % of their triples 1 in 200 comes so far
LEAST_WORDS = 12  # of shorter rows one other word is another row
BYTES_AT_ONCE = 400_000  # of texts; what is made of them stays in the processor's cache, or nearly
PAIRS_AT_ONCE = 200_000

_SIGNS = re.compile(r"[^\w\x00-\x7f]+")  # beyond ASCII
_ODD = np.random.default_rng(1).integers(1, 2**31, HASHES, dtype=np.uint32) * np.uint32(2) + np.uint32(1)
_SPACE = np.array([ord(" ")])
_TIMES = 0x9E6C63D0676A9A99  # of the letters' numbers in a word's, and what undoes it
_PER = pow(_TIMES, -1, 2**64)
_known_powers: dict[int, NDArray[np.uint64]] = {}
_NEXT, _AFTER = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F)


class _Words:
    """Numbers words many rows at a time, all of whose texts are in units of one size: latin-1, or UTF-16.

    A word's number is a polynomial in its letters, modulo 2^64, so that numpy can find all of them at once: the same
    in every process and for both kinds of units, whose numbers for the same letter are equal.
    """

    def __init__(self, letters: NDArray[np.uint64], unit: type[np.unsignedinteger[Any]]) -> None:
        self._letters, self._unit = letters, unit
        self._texts = bytearray()
        self._begins: list[int] = []
        self.rows: list[int] = []

    def add(self, row: int, text: bytes) -> int:
        """How many bytes are waiting now."""
        self.rows.append(row)
        self._begins.append(len(self._texts))
        self._texts += text
        self._texts += _SPACE.astype(self._unit).tobytes()
        return len(self._texts)

    def take(self) -> tuple[NDArray[np.uint64], Numbers]:
        """The words of all rows, and at which of them each row begins; nothing is waiting then."""
        letters = self._letters[np.frombuffer(self._texts, self._unit)]
        inside = letters != 0
        inside[1:] &= letters[:-1] == 0
        starts = np.flatnonzero(inside)
        begins = np.array(self._begins) // np.dtype(self._unit).itemsize
        self._texts, self._begins, self.rows = bytearray(), [], []
        if not len(starts):
            return np.zeros(0, np.uint64), np.zeros(len(begins), np.int64)
        letters *= _powers(_TIMES, len(letters))
        sums = np.cumsum(letters, out=letters)
        before = sums[starts - 1]  # of the first word, should it begin at once: the sum of all
        before[: int(starts[0] == 0)] = 0
        words = np.diff(before, append=sums[-1]) * _powers(_PER, len(sums))[starts]
        return words, np.searchsorted(starts, begins)


def _powers(of: int, count: int) -> NDArray[np.uint64]:
    """The first powers of a number, modulo 2^64."""
    known = _known_powers.get(of)
    if known is None or len(known) < count:
        factors = np.full(count + count // 4, of, np.uint64)
        factors[0] = 1
        known = _known_powers[of] = np.multiply.accumulate(factors)
    return known[:count]


def _letters() -> NDArray[np.uint64]:
    """The number of each letter of 16 bits; of those in ASCII in small letters, and 0 for signs."""
    found = np.random.default_rng(20251121).integers(1, 2**63, 2**16, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    for one in range(128):
        sign = chr(one)
        found[one] = found[ord(sign.lower())] if re.match(r"\w", sign) else 0
    return found


def _latin_letters() -> NDArray[np.uint64]:
    """The same of latin-1, in small letters beyond ASCII too."""
    signs = map(chr, range(256))
    return np.array([_LETTERS[ord(one.lower())] if re.match(r"\w", one) else 0 for one in signs], np.uint64)


_LETTERS = _letters()
_LATIN = _latin_letters()


class NearDuplicates:
    """Rows with almost the words of an earlier row of the same split, and of a row that is learnt from."""

    def __init__(self, splits: Splits) -> None:
        self._splits = splits
        self._latin, self._others = _Words(_LATIN, np.uint8), _Words(_LETTERS, np.uint16)
        self._signatures: list[NDArray[np.uint16]] = []
        self._short: list[NDArray[np.bool_]] = []
        self._waiting = 0

    def add(self, said: Said) -> None:
        try:
            size = self._latin.add(self._waiting, said.words.encode("latin-1"))
        except UnicodeEncodeError:
            text = _SIGNS.sub(" ", said.words.lower())
            size = self._others.add(self._waiting, text.encode("utf-16-le"))
        self._waiting += 1
        if size > BYTES_AT_ONCE:
            self._sign()

    def _sign(self) -> None:
        """The signatures of the rows that were gathered."""
        signed, short = np.zeros((self._waiting, HASHES), np.uint16), np.ones(self._waiting, bool)
        for gathered in (self._latin, self._others):
            if rows := gathered.rows:
                words, begins = gathered.take()
                short[rows] = np.diff(begins, append=len(words)) < LEAST_WORDS
                signed[rows] = _signatures(words, begins)
        self._signatures.append(signed)
        self._short.append(short)
        self._waiting = 0

    def finish(self, copies: NDArray[np.bool_]) -> Iterator[Finding]:
        """`copies`: rows that say exactly what another says, of which nothing more is to be told."""
        self._sign()
        signed, short = np.concatenate(self._signatures), np.concatenate(self._short)
        self._signatures = []
        codes = self._splits.codes
        rows = np.flatnonzero(~short & ~copies)
        likest, across = _likest(signed, codes, rows)
        for row in np.flatnonzero(across >= 0).tolist():
            other = int(across[row])
            told = f"{_likeness(signed, row, other)} row {other + 1:,} of {self._splits.names[codes[other]]}"
            yield row + 1, "nearly_in_two_splits", told
        for row, other in _kept_first(signed, likest):
            yield row + 1, "near_duplicate", f"{_likeness(signed, row, other)} row {other + 1:,}"


def _signatures(words: NDArray[np.uint64], begins: Numbers) -> NDArray[np.uint16]:
    """Of each row the smallest of its triples' hashes, HASHES times; of rows without triples it says nothing."""
    signed = np.zeros((len(begins), HASHES), np.uint16)
    triples = words.copy()
    triples[:-1] += words[1:] * _NEXT
    triples[:-2] += words[2:] * _AFTER
    triples ^= triples >> np.uint64(31)
    triples *= np.uint64(0xD6E8FEB86659FD93)
    triples ^= triples >> np.uint64(32)
    whole = np.ones(len(words), bool)  # the last two words of a row begin no triple of its own
    ends = np.append(begins[1:], len(words))
    whole[ends[ends > 0] - 1] = whole[ends[ends > 1] - 2] = False
    short = (triples[whole] >> np.uint64(16)).astype(np.uint32)
    if not len(short):
        return signed
    starts = np.append(0, np.cumsum(whole))[begins]
    hashes = np.full(len(short) + 1, 2**32 - 1, np.uint32)  # the last is of no triple: rows without any may begin there
    for place, odd in enumerate(_ODD):
        np.multiply(short, odd, out=hashes[:-1])
        least = np.minimum.reduceat(hashes, starts)
        signed[:, place] = (least * np.uint32(0x9E3779B1)) >> np.uint32(16)
    return signed


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
