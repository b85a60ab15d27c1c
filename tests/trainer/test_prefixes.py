"""Rows as segments: each row can be read off its path, and what several begin with is told once."""

from array import array

from hypothesis import given
from hypothesis import strategies as st

from trainer.prefixes import SHORTEST, Line, Segment, Span, Tokens, apart, merged, shared, spans

FEW = st.integers(0, 1)  # values of tokens, so that rows begin alike by chance
ROWS = st.lists(st.lists(FEW, min_size=1, max_size=40).map(lambda ids: array("i", ids)), min_size=1, max_size=12)
BEGIN = list(range(20))


def rows_of(*rows: list[int]) -> list[Tokens]:
    return [array("i", row) for row in rows]


def read_back(line: Line, rows: list[Tokens]) -> list[list[int | None]]:
    """Write the rows into the line, and read each as its last segment sees it."""
    ids: list[int | None] = [None] * line.tokens
    found = spans(line.segments)
    for row, path in zip(rows, line.paths, strict=True):
        places = [place for number in path for place in range(found[number].first, found[number].last)]
        for place, token in zip(places, row, strict=True):
            assert ids[place] in (None, token)
            ids[place] = token
    return [[ids[place] for start, end in found[path[-1]].seen for place in range(start, end)] for path in line.paths]


@given(ROWS)
def test_each_row_is_what_its_last_segment_sees(rows: list[Tokens]) -> None:
    for line in (merged(rows), apart(rows)):
        assert read_back(line, rows) == [list(row) for row in rows]
        assert all(segment.length > 0 and segment.after < number for number, segment in enumerate(line.segments))
    assert merged(rows).tokens <= apart(rows).tokens == sum(len(row) for row in rows)


@given(ROWS)
def test_rows_that_begin_alike_for_long_share_it(rows: list[Tokens]) -> None:
    line = merged(rows)
    for one, its in zip(rows, line.paths, strict=True):
        for other, path in zip(rows, line.paths, strict=True):
            if shared(one, other) >= SHORTEST:
                assert its[0] == path[0]


def test_beginnings_nest() -> None:
    longer = [*BEGIN, *range(50, 60)]
    line = merged(rows_of([*longer, 1], [*BEGIN, 7, 8], [*longer, 2, 3], longer))
    assert line.segments == (Segment(20), Segment(2, 0), Segment(10, 0), Segment(1, 2), Segment(2, 2))
    assert line.paths == [(0, 2, 3), (0, 1), (0, 2, 4), (0, 2)]


def test_a_short_beginning_is_not_worth_a_segment() -> None:
    rows = rows_of([*BEGIN[: SHORTEST - 1], 90], [*BEGIN[: SHORTEST - 1], 91])
    assert merged(rows).segments == (Segment(SHORTEST), Segment(SHORTEST))


def test_spans_that_touch_are_one() -> None:
    assert spans((Segment(5), Segment(3, 0), Segment(2, 0))) == (
        Span(0, 5, ((0, 5),)),
        Span(5, 8, ((0, 8),)),
        Span(8, 10, ((0, 5), (8, 10))),
    )


def test_thousands_of_rows_that_go_on_from_each_other() -> None:
    rows = rows_of(*([1] * (SHORTEST * count) for count in range(1, 1500)))
    assert merged(rows).tokens == SHORTEST * 1499
