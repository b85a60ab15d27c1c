"""Finds near-duplicate rows: MinHash signatures of word trigrams, compared within equal LSH bands.

Signatures: Broder 1997. Bands: Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, section 3.4.
"""

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.formats.finding_groups import Finding, IntArray, Splits, group_rows
from trainer.formats.searching import RowText

HASHES = 48  # values per signature, 2 bytes each
BAND_SIZE = 4  # values per band: 4 of 16 bits fill a 64-bit key
MIN_SIMILARITY = 38 / 48  # share of equal values; reached by 1 in 200 pairs whose trigrams overlap by 60 %
MIN_WORDS = 12  # in shorter rows a single different word matters
BYTES_AT_ONCE = 400_000  # of text, so that intermediate arrays about fit into the CPU cache
PAIRS_AT_ONCE = 200_000

_NON_WORD = re.compile(r"[^\w\x00-\x7f]+")  # outside ASCII
_MULTIPLIERS = np.random.default_rng(1).integers(1, 2**31, HASHES, dtype=np.uint32) * np.uint32(2) + np.uint32(1)
_SPACE = np.array([ord(" ")])
_BASE = 0x9E6C63D0676A9A99  # of the word polynomials; its inverse modulo 2^64 is next
_BASE_INVERSE = pow(_BASE, -1, 2**64)
_known_powers: dict[int, NDArray[np.uint64]] = {}
_MIX_SECOND, _MIX_THIRD = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F)


class _WordHasher:
    """Hashes the words of many rows at once; all texts have code units of one size, Latin-1 or UTF-16.

    A word's hash is a polynomial in its characters' codes modulo 2^64, so that numpy computes all of them from one
    cumulative sum. It is the same in every process and for both unit sizes, as a character has one code in both.
    """

    def __init__(self, codes: NDArray[np.uint64], unit: type[np.unsignedinteger[Any]]) -> None:
        self._codes, self._unit = codes, unit
        self._texts = bytearray()
        self._row_starts: list[int] = []
        self.rows: list[int] = []

    def add(self, row: int, text: bytes) -> int:
        """Queue a row's text. Returns the number of queued bytes."""
        self.rows.append(row)
        self._row_starts.append(len(self._texts))
        self._texts += text
        self._texts += _SPACE.astype(self._unit).tobytes()
        return len(self._texts)

    def take(self) -> tuple[NDArray[np.uint64], IntArray]:
        """The word hashes of all queued rows, and the index of each row's first word; empties the queue."""
        codes = self._codes[np.frombuffer(self._texts, self._unit)]
        is_start = codes != 0
        is_start[1:] &= codes[:-1] == 0
        starts = np.flatnonzero(is_start)
        row_starts = np.array(self._row_starts) // np.dtype(self._unit).itemsize
        self._texts, self._row_starts, self.rows = bytearray(), [], []
        if not len(starts):
            return np.zeros(0, np.uint64), np.zeros(len(row_starts), np.int64)
        codes *= _powers(_BASE, len(codes))
        sums = np.cumsum(codes, out=codes)
        before = sums[starts - 1]  # wrong for a word at position 0, where it is the total; corrected in the next line
        before[: int(starts[0] == 0)] = 0
        words = np.diff(before, append=sums[-1]) * _powers(_BASE_INVERSE, len(sums))[starts]
        return words, np.searchsorted(starts, row_starts)


def _powers(of: int, count: int) -> NDArray[np.uint64]:
    """The first `count` powers of a number modulo 2^64, cached."""
    known = _known_powers.get(of)
    if known is None or len(known) < count:
        factors = np.full(count + count // 4, of, np.uint64)
        factors[0] = 1
        known = _known_powers[of] = np.multiply.accumulate(factors)
    return known[:count]


def _character_codes() -> NDArray[np.uint64]:
    """A random odd code for each UTF-16 unit: the same for both cases in ASCII, 0 for non-word characters."""
    found = np.random.default_rng(20251121).integers(1, 2**63, 2**16, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    for code in range(128):
        character = chr(code)
        found[code] = found[ord(character.lower())] if re.match(r"\w", character) else 0
    return found


def _latin_codes() -> NDArray[np.uint64]:
    """The same for Latin-1, where case is ignored beyond ASCII too."""
    characters = map(chr, range(256))
    return np.array(
        [_CODES[ord(character.lower())] if re.match(r"\w", character) else 0 for character in characters], np.uint64
    )


_CODES = _character_codes()
_LATIN_CODES = _latin_codes()


class NearDuplicates:
    """Rows nearly equal to an earlier row of their split, or to a row of the training split."""

    def __init__(self, splits: Splits) -> None:
        self._splits = splits
        self._latin, self._others = _WordHasher(_LATIN_CODES, np.uint8), _WordHasher(_CODES, np.uint16)
        self._signatures: list[NDArray[np.uint16]] = []
        self._too_short: list[NDArray[np.bool_]] = []
        self._pending = 0

    def add(self, row_text: RowText) -> None:
        try:
            size = self._latin.add(self._pending, row_text.words.encode("latin-1"))
        except UnicodeEncodeError:
            text = _NON_WORD.sub(" ", row_text.words.lower())
            size = self._others.add(self._pending, text.encode("utf-16-le"))
        self._pending += 1
        if size > BYTES_AT_ONCE:
            self._flush()

    def _flush(self) -> None:
        """Compute the signatures of the queued rows."""
        signatures, too_short = np.zeros((self._pending, HASHES), np.uint16), np.ones(self._pending, bool)
        for queue in (self._latin, self._others):
            if rows := queue.rows:
                words, row_starts = queue.take()
                too_short[rows] = np.diff(row_starts, append=len(words)) < MIN_WORDS
                signatures[rows] = _signatures(words, row_starts)
        self._signatures.append(signatures)
        self._too_short.append(too_short)
        self._pending = 0

    def finish(self, copies: NDArray[np.bool_]) -> Iterator[Finding]:
        """`copies`: exact copies, which are reported elsewhere."""
        self._flush()
        signatures, too_short = np.concatenate(self._signatures), np.concatenate(self._too_short)
        self._signatures = []
        codes = self._splits.codes
        rows = np.flatnonzero(~too_short & ~copies)
        similar, across = _similar_rows(signatures, codes, rows)
        for row in np.flatnonzero(across >= 0).tolist():
            other = int(across[row])
            split = self._splits.names[codes[other]]
            yield (
                row + 1,
                "nearly_in_two_splits",
                f"{_similarity_text(signatures, row, other)} row {other + 1:,} of {split}",
            )
        for row, other in _with_survivors(signatures, similar):
            yield row + 1, "near_duplicate", f"{_similarity_text(signatures, row, other)} row {other + 1:,}"


def _signatures(words: NDArray[np.uint64], row_starts: IntArray) -> NDArray[np.uint16]:
    """Each row's MinHash signature: the minimum of HASHES hashes over its trigrams; arbitrary for rows without any."""
    signatures = np.zeros((len(row_starts), HASHES), np.uint16)
    trigrams = words.copy()
    trigrams[:-1] += words[1:] * _MIX_SECOND
    trigrams[:-2] += words[2:] * _MIX_THIRD
    trigrams ^= trigrams >> np.uint64(31)
    trigrams *= np.uint64(0xD6E8FEB86659FD93)
    trigrams ^= trigrams >> np.uint64(32)
    starts_trigram = np.ones(len(words), bool)  # the last two words of a row start none
    ends = np.append(row_starts[1:], len(words))
    starts_trigram[ends[ends > 0] - 1] = starts_trigram[ends[ends > 1] - 2] = False
    hashed = (trigrams[starts_trigram] >> np.uint64(16)).astype(np.uint32)
    if not len(hashed):
        return signatures
    starts = np.append(0, np.cumsum(starts_trigram))[row_starts]
    # The last entry is a sentinel: rows without trigrams may start there.
    hashes = np.full(len(hashed) + 1, 2**32 - 1, np.uint32)
    for index, multiplier in enumerate(_MULTIPLIERS):
        np.multiply(hashed, multiplier, out=hashes[:-1])
        minimum = np.minimum.reduceat(hashes, starts)
        signatures[:, index] = (minimum * np.uint32(0x9E3779B1)) >> np.uint32(16)
    return signatures


def _similar_rows(
    signatures: NDArray[np.uint16], codes: NDArray[np.uint8], rows: IntArray
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each row a similar earlier row of its split, and a similar row of an earlier split; -1 for none."""
    own, across = np.full(len(signatures), -1), np.full(len(signatures), -1)
    if not len(rows):
        return own, across
    chosen, splits = signatures[rows], codes[rows]
    bands = np.ascontiguousarray(chosen).view(np.uint64).reshape(len(rows), HASHES // BAND_SIZE)
    for band in range(HASHES // BAND_SIZE):
        found = group_rows(np.ascontiguousarray(bands[:, band]), splits)
        order, before = rows[found.order], rows[np.roll(found.order, 1)]
        _keep_lowest(signatures, order, rows[found.first_in_split], own)
        _keep_lowest(signatures, order, np.where(found.order != found.first_in_split, before, order), own)
        _keep_lowest(
            signatures, order, np.where(splits[found.order] != splits[found.first], rows[found.first], order), across
        )
    return own, across


def _keep_lowest(signatures: NDArray[np.uint16], rows: IntArray, others: IntArray, lowest: NDArray[np.int64]) -> None:
    """Record for each row the other row if they are similar and no lower one is recorded."""
    pairs = np.flatnonzero(rows != others)
    for start in range(0, len(pairs), PAIRS_AT_ONCE):
        batch = pairs[start : start + PAIRS_AT_ONCE]
        one, other = rows[batch], others[batch]
        is_similar = (signatures[one] == signatures[other]).mean(axis=1) >= MIN_SIMILARITY
        one, other = one[is_similar], other[is_similar]
        better = (lowest[one] < 0) | (other < lowest[one])
        lowest[one[better]] = other[better]


def _with_survivors(signatures: NDArray[np.uint16], similar: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Each row that can go, with the similar row that stays. A row similar only to rows that go is kept."""
    survivors: dict[int, int] = {}
    for row in np.flatnonzero(similar >= 0).tolist():
        other = int(similar[row])
        survivor = survivors.get(other, other)
        if survivor == other or _similarity(signatures, row, survivor) >= MIN_SIMILARITY:
            survivors[row] = survivor
            yield row, survivor


def _similarity(signatures: NDArray[np.uint16], row: int, other: int) -> float:
    return float((signatures[row] == signatures[other]).mean())


def _similarity_text(signatures: NDArray[np.uint16], row: int, other: int) -> str:
    share = _similarity(signatures, row, other)
    return "has the words of" if share == 1 else f"about {share:.0%} like"
