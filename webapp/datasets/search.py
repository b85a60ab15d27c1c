"""Finds rows of a surveyed version: read-only, one short connection a request, and never longer than a moment."""

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from trainer.formats.searching import as_query

PAGE_SECONDS = 3.0
COUNT_SECONDS = 0.5
MOST_COUNTED = 10_000
ANY_FINDING = "any"
STEPS = 10_000  # of SQLite's machine between two looks at the clock: well under a millisecond


class TooSlow(Exception):
    """The search was broken off."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What rows are looked for; what is left at its default does not matter. `ids` of None: any."""

    q: str = ""
    finding: str = ""
    role: str = ""
    split: str = ""
    column: str = ""  # what one of the upload's other columns says: "lang=de"
    shortest: int | None = None  # characters
    longest: int | None = None
    turns: int | None = None
    turns_to: int | None = None
    ids: frozenset[str] | None = None


@dataclass
class Found:
    """Numbers of rows in order. `more_before` and `more_after` say whether there are others; `count` is None when it
    would take too long, MOST_COUNTED + 1 when there are more than that."""

    numbers: list[int] = field(default_factory=list)
    more_before: bool = False
    more_after: bool = False
    count: int | None = 0


@dataclass(frozen=True)
class _Plan:
    """A statement in pieces: tables, conditions with their values, and the number in whose order rows come."""

    source: str
    where: str
    values: list[object]
    number: str

    def select(self, rest: str) -> str:
        return f"SELECT {self.number} FROM {self.source} WHERE {self.where} {rest}"  # noqa: S608 # pieces of this file


def find(survey: Path, wanted: Wanted, *, size: int, start: int = 1, end: int = 0) -> Found:
    """Up to `size` rows from number `start` on, or up to number `end` when that is given. Raises TooSlow."""
    plan = _plan(wanted)
    if plan is None:
        return Found()
    ahead = plan.select(f"AND {plan.number} >= ? ORDER BY {plan.number} LIMIT ?")
    back = plan.select(f"AND {plan.number} <= ? ORDER BY {plan.number} DESC LIMIT ?")
    with _opened(survey) as database:
        with _limited(database, PAGE_SECONDS):
            numbers = _numbers(database, back if end else ahead, [*plan.values, end or start, size + 1])
            there = sorted(numbers[:size])
            first, last = (there[0], there[-1]) if there else (start, end)
            other, edge = (ahead, last + 1) if end else (back, first - 1)
            from_the_first = not end and start <= 1
            others = not from_the_first and bool(_numbers(database, other, [*plan.values, edge, 1]))
        beyond = len(numbers) > size
        count = len(numbers) if from_the_first and not beyond else _count(database, plan)
        return Found(there, *((beyond, others) if end else (others, beyond)), count)


def iter_found(survey: Path, wanted: Wanted) -> Iterator[int]:
    """The numbers of all rows that are wanted, in order; however long that takes."""
    if plan := _plan(wanted):
        with _opened(survey) as database:
            for (number,) in database.execute(plan.select(f"ORDER BY {plan.number}"), plan.values):
                yield number


def _plan(wanted: Wanted) -> _Plan | None:
    """None when what is looked for is signs alone, which are no words. No typed text becomes part of a statement."""
    query = as_query(wanted.q)
    if wanted.q.strip() and not query:
        return None
    ids = None if wanted.ids is None else json.dumps(sorted(wanted.ids))
    possible: list[tuple[str, object]] = [
        ("texts MATCH ?", query),
        ("instr(rows.roles, ?)", wanted.role and f" {wanted.role} "),
        ("rows.split = ?", wanted.split),
        ("rows.characters >= ?", wanted.shortest),
        ("rows.characters <= ?", wanted.longest),
        ("rows.turns >= ?", wanted.turns),
        ("rows.turns <= ?", wanted.turns_to),
        ("rows.id IN (SELECT value FROM json_each(?))", ids),
        ("says.value = (SELECT value FROM said WHERE text = ?)", wanted.column),
        ("rows.number IN (SELECT number FROM findings WHERE kind = ?)", wanted.finding),
    ]
    if wanted.finding == ANY_FINDING:
        possible[-1] = ("rows.number IN (SELECT number FROM findings WHERE ?)", 1)
    chosen = [(text, value) for text, value in possible if value not in (None, "")]
    where = " AND ".join(["1", *(text for text, _ in chosen)])
    return _Plan(_source(query, wanted.column), where, [value for _, value in chosen], _number(query, wanted.column))


def _source(query: str, column: str) -> str:
    """The tables in the order in which they are gone through: what leaves the fewest rows first."""
    if query:
        rows = "texts CROSS JOIN rows ON rows.number = texts.rowid"
        return f"{rows} CROSS JOIN says ON says.number = rows.number" if column else rows
    return "says CROSS JOIN rows ON rows.number = says.number" if column else "rows"


def _number(query: str, column: str) -> str:
    """The column whose order is the order of the first table."""
    return "texts.rowid" if query else "says.number" if column else "rows.number"


def _numbers(database: sqlite3.Connection, statement: str, values: list[object]) -> list[int]:
    try:
        return [number for (number,) in database.execute(statement, values)]
    except sqlite3.OperationalError as error:
        if "interrupted" in str(error):
            raise TooSlow from error
        raise


def _count(database: sqlite3.Connection, plan: _Plan) -> int | None:
    counted = f"SELECT count(*) FROM ({plan.select(f'LIMIT {MOST_COUNTED + 1}')})"  # noqa: S608 # as above
    with _limited(database, COUNT_SECONDS):
        try:
            return _numbers(database, counted, plan.values)[0]
        except TooSlow:
            return None


@contextmanager
def _opened(survey: Path) -> Iterator[sqlite3.Connection]:
    """The file as nobody may change it: no locks are taken, and none are waited for."""
    address = f"file:{quote(str(survey))}?mode=ro&immutable=1"
    with closing(sqlite3.connect(address, uri=True, check_same_thread=False)) as database:
        yield database


@contextmanager
def _limited(database: sqlite3.Connection, seconds: float) -> Iterator[None]:
    """Break off what takes longer."""
    until = time.monotonic() + seconds
    database.set_progress_handler(lambda: time.monotonic() > until, STEPS)
    try:
        yield
    finally:
        database.set_progress_handler(None, 0)
