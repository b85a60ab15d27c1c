"""Exports rows in any layout; a row that would not be read back equal is refused."""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import BinaryIO, TextIO

from trainer.formats.canonical import Content, Kind, Row
from trainer.formats.cells import guard
from trainer.formats.columns_beside import ExtraColumns
from trainer.formats.layouts import LAYOUTS, CannotHold, Layout
from trainer.formats.problems import BadRow

__all__ = ["LAYOUTS", "Layout", "RefusedRow", "Written", "layout_named", "layouts_for", "lines_of", "write_rows"]

BOM = "\ufeff"  # without it, spreadsheets do not detect UTF-8
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False)


class RefusedRow(Exception):
    """The layout cannot hold this row. `refuses`: which rows it cannot hold."""

    def __init__(self, row: Row, layout: Layout) -> None:
        super().__init__(f"{layout.title} cannot hold the row of line {row.line}. {layout.refuses} are refused.")
        self.row_id = row.id
        self.refuses = layout.refuses


@dataclass
class Written:
    """How many rows were written and left out, and the id of the first one left out.

    lost: extra columns that were not written because they would be read as something else.
    """

    rows: int = 0
    left_out: int = 0
    first_left_out: str = ""
    lost: set[str] = field(default_factory=set)


def layouts_for(kind: Kind) -> list[Layout]:
    """The layouts for rows of this kind; the first one can hold every row."""
    return [layout for layout in LAYOUTS if layout.kind == kind]


def layout_named(name: str, kind: Kind) -> Layout:
    """Raises KeyError if rows of this kind have no such layout."""
    return {layout.name: layout for layout in layouts_for(kind)}[name]


def write_rows(
    rows: Iterable[Row],
    layout: str,
    out: TextIO | BinaryIO,
    *,
    columns: Sequence[str] = (),
    leave_out: bool = False,
) -> Written:
    """Write rows of one kind. A row that the layout cannot hold raises RefusedRow, or is skipped with `leave_out`.

    columns: the extra columns of a table, which must be known before its first row; JSON lines include all of
    them. A text file for CSV must be opened with newline="".
    """
    written = Written()
    for text in lines_of(rows, layout, written, columns=columns, leave_out=leave_out):
        if isinstance(out, io.TextIOBase):
            out.write(text)
        else:
            out.write(text.encode())  # type: ignore[arg-type] # any other file takes bytes
    return written


def lines_of(
    rows: Iterable[Row], layout: str, written: Written, *, columns: Sequence[str] = (), leave_out: bool = False
) -> Iterator[str]:
    """The same as text, row by row, for streaming; `written` is complete at the end."""
    chosen: Layout | None = None
    for row in rows:
        if chosen is None:
            chosen = layout_named(layout, row.kind)
            extra_columns = ExtraColumns(chosen, written.lost)
            if chosen.columns:
                more = extra_columns.table_columns(columns, _record(row, chosen))
                chosen = replace(chosen, columns=(*chosen.columns, *more))
                yield BOM + _table_line(dict(zip(chosen.columns, chosen.columns, strict=True)), chosen)
        record = _record(row, chosen)
        if record is not None:
            written.rows += 1
            record = extra_columns.with_extra(record, row.extra)
            yield _table_line(record, chosen) if chosen.columns else _json_line(record)
        elif leave_out:
            written.left_out += 1
            written.first_left_out = written.first_left_out or row.id
        else:
            raise RefusedRow(row, chosen)


def _record(row: Content, layout: Layout) -> dict[str, object] | None:
    """The row in the layout; None if it would not be read back equal."""
    try:
        record = layout.record(row)
        if not layout.refuses or layout.family.to_content(record).shape() == row.shape():
            return record
    except (CannotHold, BadRow):
        pass
    return None


def _json_line(record: dict[str, object]) -> str:
    """A line with Unicode's line separators escaped, as some readers take them for line ends."""
    text = _ENCODER.encode(record)
    for mark in ("\u2028", "\u2029", "\x85"):
        if mark in text:
            text = text.replace(mark, f"\\u{ord(mark):04x}")
    return text + "\n"


def _table_line(record: dict[str, object], layout: Layout) -> str:
    out = io.StringIO()
    writer = csv.writer(out, quoting=csv.QUOTE_ALL)
    writer.writerow([guard(str(record[name])) for name in layout.columns])
    return out.getvalue()
