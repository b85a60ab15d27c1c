"""Surveys canonical rows: a SQLite file to search and filter them by, written completely or not at all."""

import json
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from trainer.errors import TrainerError
from trainer.events import Emit, Finished, Log
from trainer.formats.canonical import Row, iter_rows
from trainer.formats.publishing import publish, staging_path
from trainer.formats.scripts import NAMES
from trainer.formats.searching import RowText
from trainer.formats.survey_columns import TABLES as COLUMN_TABLES
from trainer.formats.survey_columns import ColumnValues
from trainer.formats.survey_findings import Detectors
from trainer.formats.survey_texts import TextParts

VERSION = 5  # increase it to have the surveys of existing datasets made again
ROWS_AT_ONCE = 500  # must divide ROWS_OF_PART
MAX_SEARCHED_BYTES = 8_000_000_000  # of rows; beyond that a full-text index takes too long and too much disk
FAST = (  # a broken file is thrown away, so it needs no durability
    "PRAGMA page_size = 8192",
    "PRAGMA journal_mode = OFF",
    "PRAGMA synchronous = OFF",
    "PRAGMA locking_mode = EXCLUSIVE",
    "PRAGMA cache_size = -64000",
)
TABLES = (
    "CREATE TABLE rows (number INTEGER PRIMARY KEY, id TEXT, line INT, turns INT, characters INT, "
    "answer_characters INT, roles TEXT, split TEXT, script TEXT)",
    "CREATE TABLE findings (number INT, kind TEXT, detail TEXT)",
)
INDEXES = (
    "CREATE INDEX rows_by_id ON rows (id)",
    "CREATE INDEX rows_by_characters ON rows (characters)",
    "CREATE INDEX rows_by_turns ON rows (turns)",
    "CREATE INDEX rows_by_roles ON rows (roles)",
    "CREATE INDEX rows_by_split ON rows (split)",
    "CREATE INDEX rows_by_script ON rows (script)",
    "CREATE INDEX findings_by_kind ON findings (kind, number)",
    "CREATE INDEX findings_by_number ON findings (number)",
)


@dataclass(frozen=True)
class Measures:
    """Lengths and roles of a row. Turns are answers; characters count all messages."""

    turns: int
    characters: int
    answer_characters: int
    roles: tuple[str, ...]


def measure(row: Row) -> Measures:
    """The numbers of one row, the same as in a check's report."""
    messages = [*row.messages, *row.prompt, *row.chosen, *row.rejected, *row.completion]
    answers = [message for message in messages if message["role"] == "assistant"]
    text = len(row.text or "")
    return Measures(
        turns=len(answers),
        characters=text + sum(len(message["content"] or "") for message in messages),
        answer_characters=text + sum(len(message["content"] or "") for message in answers),
        roles=tuple(dict.fromkeys(message["role"] for message in messages)),
    )


class Survey:
    """Writes and counts everything in one pass over the rows."""

    def __init__(self, database: sqlite3.Connection, *, searchable: bool) -> None:
        self._database = database
        self._texts = TextParts(database) if searchable else None
        self._findings: Counter[str] = Counter()
        self._detectors = Detectors()
        self._columns = ColumnValues()
        self._splits: Counter[str] = Counter()
        self._roles: Counter[str] = Counter()
        self._scripts: Counter[str] = Counter()
        self._longest = 0
        self.rows = 0
        for statement in (*FAST, *TABLES, *COLUMN_TABLES):
            database.execute(statement)

    def add(self, some: list[Row]) -> None:
        numbered = list(enumerate(some, self.rows + 1))
        self.rows += len(some)
        texts = [(number, RowText.of(row)) for number, row in numbered]
        self._database.executemany("INSERT INTO rows VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", map(self._record, texts))
        self._database.executemany("INSERT INTO says VALUES (?, ?)", self._columns.add(numbered))
        found = [(number, kind, detail) for number, one in texts for kind, detail in self._found(one)]
        self._database.executemany("INSERT INTO findings VALUES (?, ?, ?)", found)
        if self._texts:
            self._texts.add([(number, one.words) for number, one in texts])

    def _record(self, numbered: tuple[int, RowText]) -> tuple[Any, ...]:
        number, row_text = numbered
        row, script = row_text.row, NAMES[row_text.script]
        of = measure(row)
        self._scripts[script] += 1
        self._roles.update(of.roles)
        self._longest = max(self._longest, of.characters)
        if row.split:
            self._splits[row.split] += 1
        lengths = (of.turns, of.characters, of.answer_characters)
        return (number, row.id, row.line, *lengths, f" {' '.join(of.roles)} ", row.split, script)

    def _found(self, row_text: RowText) -> Iterator[tuple[str, str]]:
        for kind, detail in self._detectors.add(row_text):
            self._findings[kind] += 1
            yield kind, detail

    def _found_together(self) -> Iterator[tuple[int, str, str]]:
        for finding in self._detectors.finish():
            self._findings[finding[1]] += 1
            yield finding

    def finish(self) -> dict[str, Any]:
        """Write the findings over all rows and the indexes. Returns the report."""
        self._database.executemany("INSERT INTO findings VALUES (?, ?, ?)", self._found_together())
        for statement in INDEXES:
            self._database.execute(statement)
        if self._texts:
            self._texts.finish()
        return {
            "version": VERSION,
            "rows": self.rows,
            "searchable": self._texts is not None,
            "longest": self._longest,
            "roles": dict(self._roles.most_common()),
            "scripts": dict(self._scripts.most_common()),
            "splits": dict(self._splits.most_common()),
            "columns": self._columns.finish(self._database),
            "findings": dict(self._findings.most_common()),
        }


def survey_rows(rows: Path, out: Path, emit: Emit) -> None:
    """Write `out`/survey.sqlite and `out`/survey.json for a rows.parquet, then emit Finished.

    Raises TrainerError(dataset_invalid) if the file contains no canonical rows.
    """
    searchable = _bytes_of(rows) <= MAX_SEARCHED_BYTES
    with staging_path(out) as path:
        with closing(sqlite3.connect(path, isolation_level=None)) as database:
            report = _read_all(rows, database, searchable=searchable)
        publish(path, out / "survey.sqlite")
        path.write_text(json.dumps(report, ensure_ascii=False))
        publish(path, out / "survey.json")
    emit(Log(text=f"{report['rows']:,} rows" + ("" if searchable else ", too many bytes to be searched")))
    emit(Finished(folder=str(out), facts=report))


def _read_all(rows: Path, database: sqlite3.Connection, *, searchable: bool) -> dict[str, Any]:
    survey = Survey(database, searchable=searchable)
    database.execute("BEGIN")
    reader = iter_rows(rows)
    while some := list(islice(reader, ROWS_AT_ONCE)):
        survey.add(some)
    report = survey.finish()
    database.execute("COMMIT")
    return report


def _bytes_of(rows: Path) -> int:
    """The uncompressed size of the rows."""
    try:
        with rows.open("rb") as opened, pq.ParquetFile(opened) as file:
            meta = file.metadata
            return sum(meta.row_group(number).total_byte_size for number in range(meta.num_row_groups))
    except (FileNotFoundError, IsADirectoryError, pa.ArrowInvalid) as error:
        fix = "Give the rows.parquet that a check wrote."
        raise TrainerError("dataset_invalid", f"There are no canonical rows at {rows}.", fix) from error
