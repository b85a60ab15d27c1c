"""The extra columns in a survey: their values, and which rows have each value."""

import sqlite3
from collections.abc import Iterable
from typing import Any

from trainer.formats.canonical import Row
from trainer.formats.extra import as_text

MAX_VALUES = 1000  # per column; one with more holds names or measures, which nobody filters by
MAX_COLUMNS = 100
MAX_LISTED = 50  # most frequent values of a column in the report
TABLES = (
    "CREATE TABLE said (value INTEGER PRIMARY KEY, text TEXT)",  # "lang=de"
    "CREATE TABLE says (value INT, number INT)",
)
INDEX = "CREATE INDEX says_by_value ON says (value, number)"


def column_tag(name: str, value: Any) -> str:
    """The text that stands for a column's value in the survey, such as "lang=de"."""
    return f"{name}={as_text(value)}"


class ColumnValues:
    """Counts the values of every column, and indexes rows by them."""

    def __init__(self) -> None:
        self._values: dict[str, dict[str, list[int]]] = {}  # name -> value -> its key and row count
        self._too_many: dict[str, int] = {}  # columns with too many values -> row count
        self._keys = 0
        self._dropped: list[int] = []

    def add(self, numbered: Iterable[tuple[int, Row]]) -> list[tuple[int, int]]:
        """Pairs of value key and row number for these rows."""
        return [
            (key, number)
            for number, row in numbered
            for name, value in row.extra.items()
            if (key := self._key_of(name, as_text(value)))
        ]

    def finish(self, database: sqlite3.Connection) -> dict[str, Any]:
        """Write the values. Returns the columns, those with most rows first, with their most frequent values."""
        database.executemany("DELETE FROM says WHERE value = ?", [(key,) for key in self._dropped])
        kept = [(key, column_tag(name, text)) for name, held in self._values.items() for text, (key, _) in held.items()]
        database.executemany("INSERT INTO said VALUES (?, ?)", kept)
        database.execute(INDEX)
        told = {name: _told(held) for name, held in self._values.items()}
        told |= {name: {"rows": rows, "different": 0, "values": {}} for name, rows in self._too_many.items()}
        return dict(sorted(told.items(), key=lambda one: -one[1]["rows"]))

    def _key_of(self, name: str, text: str) -> int:
        """The key of a value; 0 if the column is not indexed."""
        if name in self._too_many:
            self._too_many[name] += 1
            return 0
        if name not in self._values and len(self._values) + len(self._too_many) == MAX_COLUMNS:
            return 0
        held = self._values.setdefault(name, {})
        if text not in held:
            if len(held) == MAX_VALUES:
                self._drop(name)
                return 0
            self._keys += 1
            held[text] = [self._keys, 0]
        held[text][1] += 1
        return held[text][0]

    def _drop(self, name: str) -> None:
        held = self._values.pop(name)
        self._dropped += [key for key, _ in held.values()]
        self._too_many[name] = 1 + sum(rows for _, rows in held.values())


def _told(held: dict[str, list[int]]) -> dict[str, Any]:
    counts = sorted(((text, rows) for text, (_, rows) in held.items()), key=lambda one: (-one[1], one[0]))
    return {"rows": sum(rows for _, rows in counts), "different": len(held), "values": dict(counts[:MAX_LISTED])}
