"""The other columns of an upload in a survey: which values they have, and which rows have each."""

import sqlite3
from collections.abc import Iterable
from typing import Any

from trainer.formats.canonical import Row
from trainer.formats.extra import as_text

MOST_VALUES = 1000  # of one column; one with more is a name or a measure, by which nobody filters
MOST_COLUMNS = 100
MOST_TOLD = 50  # values of a column in the report, the most frequent
TABLES = (
    "CREATE TABLE said (value INTEGER PRIMARY KEY, text TEXT)",  # "lang=de"
    "CREATE TABLE says (value INT, number INT)",
)
INDEX = "CREATE INDEX says_by_value ON says (value, number)"


def said(name: str, value: Any) -> str:
    """What one looks for to find rows with this value."""
    return f"{name}={as_text(value)}"


class ColumnValues:
    """Counts the values of every column, and notes for each row those by which it may be found."""

    def __init__(self) -> None:
        self._values: dict[str, dict[str, list[int]]] = {}  # name -> value -> its key and how many rows have it
        self._too_many: dict[str, int] = {}  # names of columns with more values than are kept -> rows
        self._keys = 0
        self._dropped: list[int] = []

    def add(self, numbered: Iterable[tuple[int, Row]]) -> list[tuple[int, int]]:
        """The keys of the values that these rows have, each with the row's number."""
        return [
            (key, number)
            for number, row in numbered
            for name, value in row.extra.items()
            if (key := self._key_of(name, as_text(value)))
        ]

    def finish(self, database: sqlite3.Connection) -> dict[str, Any]:
        """Write down the values; the columns, the most filled first, with their most frequent values."""
        database.executemany("DELETE FROM says WHERE value = ?", [(key,) for key in self._dropped])
        kept = [(key, said(name, text)) for name, held in self._values.items() for text, (key, _) in held.items()]
        database.executemany("INSERT INTO said VALUES (?, ?)", kept)
        database.execute(INDEX)
        told = {name: _told(held) for name, held in self._values.items()}
        told |= {name: {"rows": rows, "different": 0, "values": {}} for name, rows in self._too_many.items()}
        return dict(sorted(told.items(), key=lambda one: -one[1]["rows"]))

    def _key_of(self, name: str, text: str) -> int:
        """0 for a value that is not kept."""
        if name in self._too_many:
            self._too_many[name] += 1
            return 0
        if name not in self._values and len(self._values) + len(self._too_many) == MOST_COLUMNS:
            return 0
        held = self._values.setdefault(name, {})
        if text not in held:
            if len(held) == MOST_VALUES:
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
    return {"rows": sum(rows for _, rows in counts), "different": len(held), "values": dict(counts[:MOST_TOLD])}
