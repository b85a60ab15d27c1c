"""The words of a survey: an index for every few thousand rows, so that no search has to put together very many."""

import sqlite3

from trainer.formats.searching import TOKENIZER

# FTS5 puts together all that a beginning of words stands for before it gives the first row: of so many rows, at most.
ROWS_OF_PART = 5000
HASH_BYTES = 64 * 1024 * 1024  # words gathered in memory before they are written: fewer pieces to merge later
PARTS = "SELECT name FROM sqlite_master WHERE sql LIKE 'CREATE VIRTUAL TABLE%' ORDER BY rowid"


class TextParts:
    """Writes texts_1, texts_2, …; the text is not kept a second time, only where each word stands."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        self._name = ""

    def add(self, texts: list[tuple[int, str]]) -> None:
        """Rows that follow one another, none of which begins a part but the first."""
        part = (texts[0][0] - 1) // ROWS_OF_PART + 1
        if self._name != f"texts_{part}":
            self.finish()
            self._begin(f"texts_{part}")
        self._database.executemany(f"INSERT INTO {self._name} (rowid, text) VALUES (?, ?)", texts)  # noqa: S608 # ours

    def finish(self) -> None:
        """Make the last part quick to read; its words leave the memory."""
        if self._name:
            self._database.execute(f"INSERT INTO {self._name} ({self._name}) VALUES ('optimize')")  # noqa: S608 # ours

    def _begin(self, name: str) -> None:
        settings = f'text, content="", columnsize=0, tokenize="{TOKENIZER}"'
        self._database.execute(f"CREATE VIRTUAL TABLE {name} USING fts5 ({settings})")
        self._database.execute(f"INSERT INTO {name} ({name}, rank) VALUES ('hashsize', ?)", (HASH_BYTES,))  # noqa: S608 # ours
        self._name = name


def part_of(number: int, parts: list[str]) -> int:
    """The place of the part that a row is in; a survey of earlier days has one for all."""
    return min(max(number - 1, 0) // ROWS_OF_PART, len(parts) - 1)
