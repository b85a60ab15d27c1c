"""The row table: what its address asks for, the rows that are shown, and where to go from there."""

import logging
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from trainer.formats import Row
from trainer.formats.canonical import Message, canonical_json
from trainer.formats.finding_kinds import KINDS
from trainer.formats.rows_file import rows_at
from trainer.formats.searching import texts_of
from trainer.formats.survey import measure
from trainer.formats.survey_columns import column_tag
from webapp.common.words import number_text
from webapp.datasets.highlighting import Piece, excerpt, has_match, pattern_of
from webapp.datasets.models import DatasetVersion
from webapp.datasets.row_marks import Marks, ids_with, marks_of
from webapp.datasets.search import MOST_COUNTED, Found, TooSlow, Wanted, find

logger = logging.getLogger(__name__)

DEFAULT_SIZE = 50
MOST_SHOWN = 600  # characters of a cell that is opened; the row itself shows the rest
MOST_CLOSED = 130  # characters of a cell that fit without opening it
MOST_COLUMNS, MOST_VALUES = 12, 30  # to choose from; the page of a row leads to the others
MARKS = ("starred", "rating", "tag")
SOUGHT = ("q", "finding", "role", "split", "script", "column", "shortest", "longest", "turns", "turns_to")
FILTERS = (*SOUGHT, *MARKS)
FINDING_NAMES = {"any": "any finding"} | {kind.name: kind.label for kind in KINDS}


@dataclass(frozen=True)
class Cell:
    """A text of a row. `opens` when there is more of it than fits, `cut` when there is more than even then is shown."""

    name: str
    pieces: list[Piece]
    opens: bool
    cut: bool
    tone: str = ""


@dataclass(frozen=True)
class TableRow:
    """A line of the table. `elsewhere` is where the search found something that no cell shows."""

    number: int
    id: str
    open: str
    cells: list[Cell]
    turns: int
    characters: int
    split: str
    marks: Marks
    elsewhere: Cell | None
    draft: str = ""  # what the person's draft does to it: edit, remove or nothing


@dataclass(frozen=True)
class Address:
    """What an address says, and how others are made from it."""

    given: dict[str, Any]

    def link(self, **changes: Any) -> str:
        """The query of an address like this one with some things otherwise; None takes a thing away."""
        said = {name: value for name, value in (self.given | changes).items() if value not in (None, "", False)}
        if said.get("size") == DEFAULT_SIZE:
            del said["size"]
        return "?" + urlencode({name: 1 if value is True else value for name, value in said.items()})

    def fresh(self, **changes: Any) -> str:
        """The same from the first row on, as after every change of what is looked for."""
        return self.link(**{"start": None, "end": None, "row": None} | changes)

    @property
    def filters(self) -> dict[str, Any]:
        return {name: self.given[name] for name in FILTERS if name in self.given}


@dataclass
class Table:
    """One page of rows. `problem` says why there are none when that is not for want of rows."""

    address: Address
    columns: list[str]
    rows: list[TableRow] = field(default_factory=list)
    count: int | None = 0
    previous: str = ""
    next: str = ""
    problem: str = ""

    @property
    def size(self) -> int:
        return int(self.address.given.get("size", DEFAULT_SIZE))

    @property
    def count_text(self) -> str:
        if self.count is None:
            return "Many rows"
        if self.count > MOST_COUNTED and self.address.filters:
            return f"More than {number_text(MOST_COUNTED)} rows"
        return "1 row" if self.count == 1 else f"{number_text(self.count)} rows"

    @property
    def chips(self) -> list[tuple[str, str]]:
        """What is filtered by, each with the address without it."""
        return [
            (_said(name, value), self.address.fresh(**{name: None})) for name, value in self.address.filters.items()
        ]


COLUMNS = {
    "chat": ["Question", "Answer"],
    "text": ["Text"],
    "preference": ["Question", "Chosen", "Rejected"],
    "labelled": ["Question", "Answer"],
}


def table_of(version: DatasetVersion, given: dict[str, Any]) -> Table:
    """The rows that an address asks for."""
    table = Table(Address(given), COLUMNS.get(version.kind, COLUMNS["chat"]))
    table.problem = why_not(version, given)
    if table.problem:
        return table
    try:
        found = _found(version, table)
    except TooSlow:
        table.problem = "The search took too long and was broken off. Look for something that fewer rows have."
        return table
    except sqlite3.DatabaseError:  # a damaged file, or a full disk: the rows themselves lie elsewhere
        logger.exception("The survey of %s cannot be read", version.pk)
        table.problem = (
            "The index of these rows cannot be read; the server's log says why. Without filters all are here."
        )
        return table
    table.count = found.count
    _link_on(table, found)
    table.rows = _shown(version, found.numbers, table.address)
    return table


def values_of(version: DatasetVersion) -> dict[str, list[tuple[str, str, int]]]:
    """For the upload's other columns their most frequent values: the filter, the value and how many rows."""
    columns = version.survey_report.get("columns", {})
    found = {name: list(told["values"].items())[:MOST_VALUES] for name, told in columns.items() if told["values"]}
    chosen = list(found.items())[:MOST_COLUMNS]
    return {name: [(column_tag(name, value), value, rows) for value, rows in held] for name, held in chosen}


def why_not(version: DatasetVersion, given: dict[str, Any]) -> str:
    """What keeps rows from being found, a sentence; empty when nothing does."""
    if not Address(given).filters:
        return ""
    if not version.is_surveyed:
        return "The rows cannot be searched yet. This becomes possible when the survey is over."
    if "column" in given and "columns" not in version.survey_report:
        return "The other columns of this version are being gone through. Come back in a moment."
    if "script" in given and "scripts" not in version.survey_report:
        return "The letters of these rows are being looked at. Come back in a moment."
    if "q" in given and not version.survey_report.get("searchable"):
        return "This version is too large for a search in its text. Filters work."
    return ""


def wanted_of(version: DatasetVersion, given: dict[str, Any]) -> Wanted:
    """The filters of an address, as the search takes them."""
    marks = {name: given[name] for name in MARKS if name in given}
    sought = {name: given[name] for name in SOUGHT if name in given}
    return Wanted(ids=ids_with(version.dataset, **marks), **sought)


def _found(version: DatasetVersion, table: Table) -> Found:
    given, size = table.address.given, table.size
    start, end = given.get("start", 1), given.get("end", 0)
    if table.address.filters:
        return find(version.survey_path, wanted_of(version, given), size=size, start=start, end=end)
    count = version.row_count
    end = min(end, count)
    first = max(1, min(end - size + 1 if end else start, count))
    last = min(max(end, size) if end else first + size - 1, count)
    return Found(list(range(first, last + 1)), first > 1, last < count, count)


def _link_on(table: Table, found: Found) -> None:
    if not found.numbers:
        return
    elsewhere = {"row": None, "start": None, "end": None}
    if found.more_before:
        table.previous = table.address.link(**elsewhere | {"end": found.numbers[0] - 1})
    if found.more_after:
        table.next = table.address.link(**elsewhere | {"start": found.numbers[-1] + 1})


def _shown(version: DatasetVersion, numbers: list[int], address: Address) -> list[TableRow]:
    rows = rows_at(version.rows_path, numbers)
    marks = marks_of(version.dataset, [row.id for row in rows.values()])
    pattern = pattern_of(address.given.get("q", ""))
    return [
        _line(number, row, address.link(row=number), marks=marks[row.id], pattern=pattern)
        for number, row in rows.items()
    ]


def _line(number: int, row: Row, link: str, *, marks: Marks, pattern: Any) -> TableRow:
    texts = list(_cells(row))
    elsewhere = None
    if pattern and not any(has_match(text, pattern) for _, text, _ in texts):
        places = ((who, text) for who, text in texts_of(row) if has_match(text, pattern))
        elsewhere = next((_cell(who.capitalize(), text, "", pattern=pattern, most=160) for who, text in places), None)
    of = measure(row)
    return TableRow(
        number=number,
        id=row.id,
        open=link,
        cells=[_cell(name, text, tone, pattern=pattern) for name, text, tone in texts],
        turns=of.turns,
        characters=of.characters,
        split=row.split or "",
        marks=marks,
        elsewhere=elsewhere,
    )


def _cell(name: str, text: str, tone: str, *, pattern: Any, most: int = MOST_SHOWN) -> Cell:
    text = text.strip()
    lines = text.count("\n", 0, MOST_SHOWN)
    pieces = excerpt(text, pattern, most)
    return Cell(name, pieces, len(text) > MOST_CLOSED or lines > 1, len(text) > most, tone)


def _cells(row: Row) -> Iterable[tuple[str, str, str]]:
    """The texts of a row that the table shows, with the column's name and a tone."""
    if row.text is not None:
        return [("Text", row.text, "")]
    if row.messages:
        asked = next((one for one in row.messages if one["role"] == "user"), None)
        answer = next((one for one in row.messages if one["role"] == "assistant"), None)
        return [("Question", _words(asked), ""), ("Answer", _words(answer), "")]
    asked = next((one for one in reversed(row.prompt) if one["role"] == "user"), None)
    question = ("Question", _words(asked), "")
    if row.label is not None:
        return [question, ("Answer", _words_of(row.completion), "good" if row.label else "bad")]
    return [question, ("Chosen", _words_of(row.chosen), ""), ("Rejected", _words_of(row.rejected), "")]


def _words_of(messages: list[Message]) -> str:
    return "\n".join(_words(message) for message in messages)


def _words(message: Message | None) -> str:
    """What a message says; the tools it calls where it says nothing."""
    if message is None:
        return ""
    calls = [call["function"] for call in message.get("tool_calls", ())]
    return message["content"] or "\n".join(f"{one['name']}({canonical_json(one['arguments'])})" for one in calls)


def _said(name: str, value: Any) -> str:
    """A filter in words."""
    words = {
        "q": f"“{value}”",
        "finding": FINDING_NAMES.get(str(value), str(value).replace("_", " ")),
        "role": f"has {value}",
        "split": f"split {value}",
        "script": f"written in {value}",
        "column": str(value).replace("=", ": ", 1),
        "tag": f"tag {value}",
        "starred": "starred",
        "rating": f"rated {value} or more",
    }
    if name in words:
        return words[name]
    number, unit = number_text(value), "answers" if name.startswith("turns") else "characters"
    return f"at {'least' if name in ('shortest', 'turns') else 'most'} {number} {unit}"
