"""Prefix sharing: tokens that several rows of a batch begin with go through the model once.

Rows often share a system prompt, an instruction template, or the prompt of a chosen and a rejected answer. Under causal
attention a token's hidden state depends only on the tokens before it, so a shared prefix has the same states in every
row, and its gradients add up. Rows are stored as a prefix tree of segments, laid out in one packed sequence. No torch.
"""

from array import array
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple, TypeAlias

MIN_SHARED = 8  # tokens; one more segment costs about as much as two tokens, so shorter prefixes are not worth it

Tokens: TypeAlias = "array[int]"


class Segment(NamedTuple):
    """Contiguous tokens of a packed sequence. `parent`: index of the segment they continue, -1 for a row's first."""

    length: int
    parent: int = -1


class Layout(NamedTuple):
    """Rows as segments, parents first. `paths`: for each row, the indices of its segments from root to leaf."""

    segments: tuple[Segment, ...]
    paths: list[tuple[int, ...]]

    @property
    def tokens(self) -> int:
        return sum(segment.length for segment in self.segments)


class Span(NamedTuple):
    """Where a segment lies in the packed sequence, and the (start, end) ranges it attends to: ancestors and itself."""

    start: int
    end: int
    visible: tuple[tuple[int, int], ...]

    @property
    def prefix_length(self) -> int:
        """Number of tokens of its rows that come before it."""
        return self.context_length - (self.end - self.start)

    @property
    def context_length(self) -> int:
        """Number of tokens that its last token attends to."""
        return sum(end - start for start, end in self.visible)


def flat_layout(rows: Sequence[Tokens]) -> Layout:
    """One segment per row: nothing is shared."""
    return Layout(tuple(Segment(len(row)) for row in rows), [(number,) for number in range(len(rows))])


def prefix_tree_layout(rows: Sequence[Tokens]) -> Layout:
    """A prefix tree of the rows: common prefixes of at least `MIN_SHARED` tokens become one segment."""
    segments: list[Segment] = []
    paths: list[tuple[int, ...]] = [()] * len(rows)
    pending: list[tuple[list[int], int, tuple[int, ...]]] = []  # rows of a subtree, its depth in tokens, path to it

    def push_children(subtree: list[int], depth: int, path: tuple[int, ...]) -> None:
        pending.extend((group, depth, path) for group in reversed(list(_groups(rows, subtree, depth))))

    push_children(sorted(range(len(rows)), key=rows.__getitem__), 0, ())
    while pending:
        group, start, path = pending.pop()
        end = common_prefix(rows[group[0]], rows[group[-1]], start)  # sorted, so all rows in between share it too
        segments.append(Segment(end - start, path[-1] if path else -1))
        path = (*path, len(segments) - 1)
        for number in group:
            paths[number] = path
        push_children([number for number in group if len(rows[number]) > end], end, path)
    return Layout(tuple(segments), paths)


def _groups(rows: Sequence[Tokens], ordered: list[int], start: int) -> Iterator[list[int]]:
    """Split sorted rows that are equal up to `start` into groups that share at least `MIN_SHARED` more tokens."""
    group: list[int] = []
    for number in ordered:
        if group and common_prefix(rows[group[0]], rows[number], start) < start + MIN_SHARED:
            yield group
            group = []
        group.append(number)
    if group:
        yield group


def common_prefix(one: Tokens, other: Tokens, start: int = 0) -> int:
    """Length of the common prefix of two rows that are known to agree on their first `start` tokens."""
    same, least = start, min(len(one), len(other))
    if one[same:least] == other[same:least]:
        return least
    while same < least - 1:
        middle = (same + least) // 2
        if one[same:middle] == other[same:middle]:
            same = middle
        else:
            least = middle
    return same


@lru_cache(maxsize=8)  # every layer asks for the spans of the same batch
def spans(segments: tuple[Segment, ...]) -> tuple[Span, ...]:
    found: list[Span] = []
    position = 0
    for length, parent in segments:
        visible = (*(found[parent].visible if parent >= 0 else ()), (position, position + length))
        found.append(Span(position, position + length, tuple(_coalesced(visible))))
        position += length
    return tuple(found)


def _coalesced(ranges: tuple[tuple[int, int], ...]) -> Iterator[tuple[int, int]]:
    """The same ranges with adjacent ones merged."""
    first, last = ranges[0]
    for start, end in ranges[1:]:
        if start != last:
            yield first, last
            first = start
        last = end
    yield first, last
