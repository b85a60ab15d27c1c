"""Rows of a version as a file for use elsewhere, in any layout, all of them or those that were found."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, cast

from trainer.formats import Kind, Row, iter_rows
from trainer.formats.rows_file import rows_at
from trainer.formats.writing import Layout, Written, layouts_for, lines_of
from webapp.common.errors import UserError
from webapp.datasets.models import DatasetVersion
from webapp.datasets.search import iter_found
from webapp.datasets.table import FILTERS, wanted_of, why_not

ROWS_AT_ONCE = 200
MOST_LOOKED_AT = 2000  # rows of which it is counted what a layout leaves out: under a second


def layouts(version: DatasetVersion) -> list[Layout]:
    """What its rows can be written as; the first one holds every row."""
    return layouts_for(cast(Kind, version.kind))


def layout_of(version: DatasetVersion, name: str) -> Layout | None:
    """The layout of this name, the first one without a name; None when rows of this kind have no such layout."""
    found = layouts(version)
    return next((one for one in found if one.name == name), None) if name else found[0]


def file_name(version: DatasetVersion, layout: Layout, *, found: bool) -> str:
    """What the file is called: after the upload, the version and the layout."""
    parts = [Path(version.original_name).stem or "rows", f"v{version.number}", layout.name]
    return "-".join([*parts, *(["found"] if found else [])]) + layout.suffix


def content_type(layout: Layout) -> str:
    return "text/csv; charset=utf-8" if layout.columns else "application/jsonl"


def pieces_of(version: DatasetVersion, layout: Layout, given: dict[str, Any]) -> Iterator[bytes]:
    """The rows in the layout, some at a time; those the layout cannot hold are left out, as its page says."""
    rows = _rows(version, given)
    return _pieces(lines_of(rows, layout.name, Written(), columns=version.columns, leave_out=True))


@dataclass(frozen=True)
class Loss:
    """How many of the rows that were looked at a layout cannot hold; `whole`: those were all of them.

    lost: other columns that it cannot hold.
    """

    layout: Layout
    left_out: int
    looked_at: int
    whole: bool
    lost: list[str]


def losses_of(version: DatasetVersion, given: dict[str, Any]) -> list[Loss]:
    """Of each layout that cannot hold all, counted on the first rows of those that are asked for."""
    found = [
        (_loss(version, layout, given), layout) for layout in layouts(version) if layout.refuses or version.columns
    ]
    return [loss for loss, layout in found if layout.refuses or loss.lost]


def _loss(version: DatasetVersion, layout: Layout, given: dict[str, Any]) -> Loss:
    written = Written()
    some = list(islice(_rows(version, given), MOST_LOOKED_AT + 1))
    for _ in lines_of(some[:MOST_LOOKED_AT], layout.name, written, columns=version.columns, leave_out=True):
        pass
    looked_at = written.rows + written.left_out
    return Loss(layout, written.left_out, looked_at, len(some) <= MOST_LOOKED_AT, sorted(written.lost))


def _pieces(lines: Iterator[str]) -> Iterator[bytes]:
    while some := "".join(islice(lines, ROWS_AT_ONCE)):
        yield some.encode()


def _rows(version: DatasetVersion, given: dict[str, Any]) -> Iterable[Row]:
    if not any(name in given for name in FILTERS):
        return iter_rows(version.rows_path)
    if why_not(version, given):
        raise UserError("search_not_ready")
    return _found_rows(version.rows_path, iter_found(version.survey_path, wanted_of(version, given)))


def _found_rows(rows: Path, numbers: Iterator[int]) -> Iterator[Row]:
    while some := list(islice(numbers, ROWS_AT_ONCE)):
        yield from rows_at(rows, some).values()
