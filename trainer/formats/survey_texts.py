"""Full-text indexes of a survey: one per few thousand rows, which bounds the time of a prefix search."""

import sqlite3

from trainer.formats.searching import TOKENIZER

# For a prefix, FTS5 merges the matches of all words before it returns a row: this bounds them.
ROWS_OF_PART = 5000
HASH_BYTES = 64 * 1024 * 1024  # buffered before writing: fewer segments to merge later
PARTS = "SELECT name FROM sqlite_master WHERE sql LIKE 'CREATE VIRTUAL TABLE%' ORDER BY rowid"


class TextParts:
    """Writes the tables texts_1, texts_2, …: contentless FTS5 indexes, which store positions but no text."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        self._name = ""

    def add(self, texts: list[tuple[int, str]]) -> None:
        """Add consecutive rows that lie in one part."""
        part = (texts[0][0] - 1) // ROWS_OF_PART + 1
        if self._name != f"texts_{part}":
            self.finish()
            self._begin(f"texts_{part}")
        self._database.executemany(f"INSERT INTO {self._name} (rowid, text) VALUES (?, ?)", texts)  # noqa: S608 # ours

    def finish(self) -> None:
        """Optimise the last part for reading, and free its buffer."""
        if self._name:
            self._database.execute(f"INSERT INTO {self._name} ({self._name}) VALUES ('optimize')")  # noqa: S608 # ours

    def _begin(self, name: str) -> None:
        settings = f'text, content="", columnsize=0, tokenize="{TOKENIZER}"'
        self._database.execute(f"CREATE VIRTUAL TABLE {name} USING fts5 ({settings})")
        self._database.execute(f"INSERT INTO {name} ({name}, rank) VALUES ('hashsize', ?)", (HASH_BYTES,))  # noqa: S608 # ours
        self._name = name


def part_of(number: int, parts: list[str]) -> int:
    """The index of the part with this row; surveys of earlier versions have a single part."""
    return min(max(number - 1, 0) // ROWS_OF_PART, len(parts) - 1)
