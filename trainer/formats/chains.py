"""H2O's rows linked by `id` and `parent_id`: each row without a successor ends one conversation."""

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from trainer.formats.canonical import Content, Message
from trainer.formats.extra import extra_of
from trainer.formats.family import Family, Gathered
from trainer.formats.fields import optional_text, read_text
from trainer.formats.problems import BadRow, Problem, json_type

LONGEST = 1000  # rows per conversation
QUESTIONS = ("instruction", "prompt", "question")
ANSWERS = ("output", "response", "answer", "completion")
FIELDS = frozenset({*QUESTIONS, *ANSWERS, "input", "system", "id", "parent_id"})
TABLE = """
CREATE TABLE rows(
    line INTEGER, id TEXT UNIQUE, parent TEXT, good INTEGER, turn TEXT, depth INTEGER, seen INTEGER DEFAULT 0,
    extra TEXT, text TEXT
);
"""
INSERT = """
INSERT INTO rows(line, id, parent, turn, good, extra, text) VALUES (?1, ?2, ?3, ?4, ?4 IS NOT NULL, ?5, ?6)
"""
BAD_ROW_COLUMNS = (None, None, "{}", "")
NEXT_DEPTH = """
UPDATE rows SET depth = ? WHERE depth IS NULL AND good AND parent IN (SELECT id FROM rows WHERE depth = ?)
"""
LEFT_OUT = "SELECT line, id, parent, text FROM rows WHERE good AND depth IS NULL ORDER BY rowid"
ENDS = """
SELECT line, id, extra, text FROM rows WHERE depth IS NOT NULL AND NOT EXISTS
    (SELECT 1 FROM rows AS next WHERE next.parent = rows.id AND next.depth IS NOT NULL)
ORDER BY rowid
"""


def matches(row: dict[str, Any]) -> float:
    """How much a row looks like this family, from 0 to 1."""
    if "parent_id" not in row or "id" not in row:
        return 0.0
    return 1.0 if _first(row, QUESTIONS) in row and _first(row, ANSWERS) in row else 0.0


def read(row: dict[str, Any]) -> Content:
    """The row as a conversation of its own, ignoring its parent."""
    return _content([_turn(row)], seen=0)


class Chains:
    """Collects rows in a SQLite file, so that memory stays small for files of any size."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / f".chains-{uuid4().hex}"
        self._rows = sqlite3.connect(self._path, isolation_level=None)
        self._rows.executescript(f"PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; {TABLE} BEGIN;")

    def add(self, line: int, row: dict[str, Any], text: str) -> None:
        """Store a row with its line. A bad row is stored by its id alone, so that its descendants can be explained."""
        own = _identity(row, "id")
        if own is None:
            raise BadRow("id", "field is empty", "Give each row an id of its own.")
        try:
            parent, turn = _identity(row, "parent_id"), json.dumps(_turn(row), ensure_ascii=False)
        except BadRow:
            self._insert(line, own)
            raise
        self._insert(line, own, (parent, turn, json.dumps(extra_of(row, FIELDS)), text))

    def _insert(self, line: int, own: str, columns: tuple[str | None, ...] = BAD_ROW_COLUMNS) -> None:
        try:
            self._rows.execute(INSERT, (line, own, *columns))
        except sqlite3.IntegrityError:
            before = self._rows.execute("SELECT line FROM rows WHERE id = ?", (own,)).fetchone()[0]
            fix = f"Line {before} has this id too: give each row its own."
            raise BadRow("id", "the same id twice", fix) from None

    def results(self) -> Iterator[Gathered]:
        """First the rows with an unusable ancestor, then one conversation for each row without a successor.

        The other columns are those of the conversation's last row.
        """
        self._rows.execute("CREATE INDEX of_parent ON rows(parent)")
        self._rows.execute("UPDATE rows SET depth = 1 WHERE good AND parent IS NULL")
        depth = 1
        while depth < LONGEST and self._rows.execute(NEXT_DEPTH, (depth + 1, depth)).rowcount:
            depth += 1
        for line, own, parent, text in self._rows.execute(LEFT_OUT):
            yield Gathered(line, text, found=self._why_left_out(own, parent))
        for line, own, extra, text in self._rows.execute(ENDS):  # not affected by updates of `seen` meanwhile
            try:
                yield Gathered(line, text, content=replace(self._conversation(own), extra=json.loads(extra)))
            except BadRow as bad:
                yield Gathered(line, text, found=bad.found)

    def close(self) -> None:
        self._rows.close()
        self._path.unlink(missing_ok=True)

    def _conversation(self, own: str | None) -> Content:
        """The conversation that ends with this row.

        Answers that an earlier conversation contains too get weight 0, so that each is trained once. Raises BadRow.
        """
        turns: list[Any] = []
        known = 0
        while own is not None:
            number, parent, turn, seen = self._rows.execute(
                "SELECT rowid, parent, turn, seen FROM rows WHERE id = ?", (own,)
            ).fetchone()
            self._rows.execute("UPDATE rows SET seen = 1 WHERE rowid = ?", (number,))
            turns.append(json.loads(turn))
            known += seen
            own = parent
        turns.reverse()
        return _content(turns, seen=known)

    def _why_left_out(self, own: str, parent: str) -> Problem:
        seen, at = {own}, parent
        while len(seen) <= LONGEST:
            found = self._rows.execute("SELECT line, parent, good FROM rows WHERE id = ?", (at,)).fetchone()
            if found is None:
                fix = f'Add the row with the id "{at[:80]}", or leave parent_id empty.'
                return Problem(
                    "parent_id", "no row has this id" if at == parent else "has an ancestor that is missing", fix
                )
            line, above, good = found
            if not good:
                return Problem("parent_id", "has an ancestor that cannot be used", f"Put line {line} right.")
            if at in seen:
                return Problem("parent_id", "the rows form a cycle", "Leave one parent_id empty.")
            seen.add(at)
            at = above
            if at is None:
                break
        return Problem("parent_id", f"more than {LONGEST:,} rows are linked", "Split the conversation.")


def _identity(row: dict[str, Any], field: str) -> str | None:
    """An id as text; tables with missing values turn 7 into 7.0."""
    value = row.get(field)
    if value is None or value == "":
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise BadRow(field, f"must be text or a number, not {json_type(value)}", "Write the id as text.")
    return str(value)


def _first(row: dict[str, Any], names: tuple[str, ...]) -> str:
    return next((name for name in names if name in row), names[0])


def _turn(row: dict[str, Any]) -> list[str]:
    """The system message, question and answer of a row."""
    asked, extra = read_text(row, _first(row, QUESTIONS)), optional_text(row, "input")
    answer = read_text(row, _first(row, ANSWERS))
    return [optional_text(row, "system"), f"{asked}\n{extra}" if extra else asked, answer]


def _content(turns: list[list[str]], *, seen: int) -> Content:
    """A conversation in which the first `seen` answers have weight 0. All turns share one system message."""
    system = turns[0][0]
    if any(own and own != system for own, _, _ in turns):
        raise BadRow("system", "the system message changes within a conversation", "Write it in the first row alone.")
    messages: list[Message] = [{"role": "system", "content": system}] if system else []
    for number, (_, asked, answer) in enumerate(turns):
        message: Message = {"role": "assistant", "content": answer}
        messages += [{"role": "user", "content": asked}, message | {"weight": 0} if number < seen else message]
    return Content(messages=messages)


FAMILY = Family(
    name="chains",
    kind="chat",
    saw='questions and answers linked by "id" and "parent_id" (H2O)',
    layout=lambda row: f'"{_first(row, QUESTIONS)}" and "{_first(row, ANSWERS)}" linked by "id" and "parent_id" (H2O)',
    fields=FIELDS,
    matches=matches,
    read=read,
    gather=Chains,
)
