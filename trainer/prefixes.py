"""What rows begin with alike goes through the model once: a line of segments, each going on where another one ends.

Rows often share much: a system prompt, the words around an instruction, the prompt of a chosen and a rejected answer.
Under causal attention a token's states depend on what stands before it alone, so tokens of a common beginning have the
same states in every row, and their gradients add up. No torch.
"""

from array import array
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple, TypeAlias

SHORTEST = 8  # tokens of a beginning that is told once: a segment more costs about what two tokens cost

Tokens: TypeAlias = "array[int]"


class Segment(NamedTuple):
    """Tokens that stand together in a line. `after`: the number of the segment they go on from; -1 begins a row."""

    length: int
    after: int = -1


class Line(NamedTuple):
    """Rows as segments, each behind the one it goes on from. `paths`: the segments of each row, from its beginning."""

    segments: tuple[Segment, ...]
    paths: list[tuple[int, ...]]

    @property
    def tokens(self) -> int:
        return sum(segment.length for segment in self.segments)


class Span(NamedTuple):
    """Where a segment stands in its line, and the stretches that its tokens see: what it goes on from, and itself."""

    first: int
    last: int
    seen: tuple[tuple[int, int], ...]

    @property
    def before(self) -> int:
        """How many tokens of its rows stand before it."""
        return self.whole - (self.last - self.first)

    @property
    def whole(self) -> int:
        """How many tokens its last one sees."""
        return sum(end - start for start, end in self.seen)


def apart(rows: Sequence[Tokens]) -> Line:
    """Rows that share nothing, whatever they begin with."""
    return Line(tuple(Segment(len(row)) for row in rows), [(number,) for number in range(len(rows))])


def merged(rows: Sequence[Tokens]) -> Line:
    """Rows with what some of them begin with alike, at least `SHORTEST` tokens of it, told once."""
    segments: list[Segment] = []
    paths: list[tuple[int, ...]] = [()] * len(rows)
    due: list[tuple[list[int], int, tuple[int, ...]]] = []  # rows that go on alike, from where, and what stands before

    def go_on(alike: list[int], start: int, path: tuple[int, ...]) -> None:
        due.extend((group, start, path) for group in reversed(list(_groups(rows, alike, start))))

    go_on(sorted(range(len(rows)), key=rows.__getitem__), 0, ())
    while due:
        alike, start, path = due.pop()
        end = shared(rows[alike[0]], rows[alike[-1]], start)  # in order, so those between share it as well
        segments.append(Segment(end - start, path[-1] if path else -1))
        path = (*path, len(segments) - 1)
        for number in alike:
            paths[number] = path
        go_on([number for number in alike if len(rows[number]) > end], end, path)
    return Line(tuple(segments), paths)


def _groups(rows: Sequence[Tokens], ordered: list[int], start: int) -> Iterator[list[int]]:
    """Cut rows in order, alike up to `start`, into those that stay alike for long enough."""
    group: list[int] = []
    for number in ordered:
        if group and shared(rows[group[0]], rows[number], start) < start + SHORTEST:
            yield group
            group = []
        group.append(number)
    if group:
        yield group


def shared(one: Tokens, other: Tokens, start: int = 0) -> int:
    """How many tokens two rows begin with alike, which is known of the first `start`."""
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


@lru_cache(maxsize=8)  # each layer asks for the spans of its pass
def spans(segments: tuple[Segment, ...]) -> tuple[Span, ...]:
    found: list[Span] = []
    place = 0
    for length, after in segments:
        seen = (*(found[after].seen if after >= 0 else ()), (place, place + length))
        found.append(Span(place, place + length, tuple(_joined(seen))))
        place += length
    return tuple(found)


def _joined(stretches: tuple[tuple[int, int], ...]) -> Iterator[tuple[int, int]]:
    """The same stretches, with those that touch made one."""
    begin, reach = stretches[0]
    for start, end in stretches[1:]:
        if start != reach:
            yield begin, reach
            begin = start
        reach = end
    yield begin, reach
