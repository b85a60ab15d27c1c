"""Rows as segments: each row can be read off its path, and what several begin with is told once."""

from array import array

from hypothesis import given
from hypothesis import strategies as st

from trainer.prefixes import (
    MIN_SHARED,
    Layout,
    Segment,
    Span,
    Tokens,
    common_prefix,
    flat_layout,
    prefix_tree_layout,
    spans,
)

FEW = st.integers(0, 1)  # values of tokens, so that rows begin alike by chance
ROWS = st.lists(st.lists(FEW, min_size=1, max_size=40).map(lambda ids: array("i", ids)), min_size=1, max_size=12)
BEGIN = list(range(20))


def rows_of(*rows: list[int]) -> list[Tokens]:
    return [array("i", row) for row in rows]


def read_back(layout: Layout, rows: list[Tokens]) -> list[list[int | None]]:
    """Write the rows into the layout, and read each as its last segment sees it."""
    ids: list[int | None] = [None] * layout.tokens
    found = spans(layout.segments)
    for row, path in zip(rows, layout.paths, strict=True):
        places = [place for number in path for place in range(found[number].start, found[number].end)]
        for place, token in zip(places, row, strict=True):
            assert ids[place] in (None, token)
            ids[place] = token
    return [
        [ids[place] for start, end in found[path[-1]].visible for place in range(start, end)] for path in layout.paths
    ]


@given(ROWS)
def test_each_row_is_what_its_last_segment_sees(rows: list[Tokens]) -> None:
    for layout in (prefix_tree_layout(rows), flat_layout(rows)):
        assert read_back(layout, rows) == [list(row) for row in rows]
        assert all(segment.length > 0 and segment.parent < number for number, segment in enumerate(layout.segments))
    assert prefix_tree_layout(rows).tokens <= flat_layout(rows).tokens == sum(len(row) for row in rows)


@given(ROWS)
def test_rows_that_begin_alike_for_long_share_it(rows: list[Tokens]) -> None:
    layout = prefix_tree_layout(rows)
    for one, its in zip(rows, layout.paths, strict=True):
        for other, path in zip(rows, layout.paths, strict=True):
            if common_prefix(one, other) >= MIN_SHARED:
                assert its[0] == path[0]


def test_beginnings_nest() -> None:
    longer = [*BEGIN, *range(50, 60)]
    layout = prefix_tree_layout(rows_of([*longer, 1], [*BEGIN, 7, 8], [*longer, 2, 3], longer))
    assert layout.segments == (Segment(20), Segment(2, 0), Segment(10, 0), Segment(1, 2), Segment(2, 2))
    assert layout.paths == [(0, 2, 3), (0, 1), (0, 2, 4), (0, 2)]


def test_a_short_beginning_is_not_worth_a_segment() -> None:
    rows = rows_of([*BEGIN[: MIN_SHARED - 1], 90], [*BEGIN[: MIN_SHARED - 1], 91])
    assert prefix_tree_layout(rows).segments == (Segment(MIN_SHARED), Segment(MIN_SHARED))


def test_spans_that_touch_are_one() -> None:
    assert spans((Segment(5), Segment(3, 0), Segment(2, 0))) == (
        Span(0, 5, ((0, 5),)),
        Span(5, 8, ((0, 8),)),
        Span(8, 10, ((0, 5), (8, 10))),
    )


def test_thousands_of_rows_that_go_on_from_each_other() -> None:
    rows = rows_of(*([1] * (MIN_SHARED * count) for count in range(1, 1500)))
    assert prefix_tree_layout(rows).tokens == MIN_SHARED * 1499
