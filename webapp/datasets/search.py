"""Finds rows of a surveyed version: read-only, one short connection a request, and never longer than a moment."""

import json
import sqlite3
import time
from array import array
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from trainer.formats.searching import as_query
from trainer.formats.survey_texts import PARTS, part_of

PAGE_SECONDS = 3.0
COUNT_SECONDS = 0.05
MOST_COUNTED = 10_000
MOST_REMEMBERED = 64  # searches of a process: 40 kB each at the most
ANY_FINDING = "any"
OUT_OF_ORDER = ("rows.roles", "rows.characters", "rows.turns")  # conditions whose index has rows in another order
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
    script: str = ""  # the letters that most of it is written in
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
    """A statement in pieces: tables, conditions with their values, and the number in whose order rows come.

    Of the texts there are several tables, each of the rows that follow those of the one before: {texts} stands for one.
    """

    source: str
    where: str
    values: list[object]
    number: str

    def select(self, rest: str, *, texts: str = "", in_order: bool = True) -> str:
        """In order, the rows are gone through one by one: by an index, very many would have to be put in order."""
        source = self.source.format(texts=texts)
        if in_order and source == "rows" and any(one in self.where for one in OUT_OF_ORDER):
            source = "rows NOT INDEXED"
        what = f"DISTINCT {self.number}" if self.number == "findings.number" else self.number
        return f"SELECT {what} FROM {source} WHERE {self.where} {rest}"  # noqa: S608 # pieces of this file


# What a search comes to: all numbers in order, None where they are more than MOST_COUNTED or take too long to find.
_All = Sequence[int] | None
_remembered: "OrderedDict[tuple[object, ...], tuple[_All, int | None]]" = OrderedDict()


def find(survey: Path, wanted: Wanted, *, size: int, start: int = 1, end: int = 0) -> Found:
    """Up to `size` rows from number `start` on, or up to number `end` when that is given. Raises TooSlow."""
    plan = _plan(wanted)
    if plan is None:
        return Found()
    with _opened(survey) as database:
        search = _Search(database, plan, _texts_of(database, plan))
        numbers, count = _count(search, key=(survey, survey.stat().st_mtime_ns, wanted))
        if numbers is not None:
            return _part(numbers, size=size, start=start, end=end)
        with search.limited(PAGE_SECONDS):
            return _page(search, size=size, start=start, end=end, count=count)


def _part(numbers: Sequence[int], *, size: int, start: int, end: int) -> Found:
    """A page of all that was found."""
    last = bisect_right(numbers, end) if end else 0
    first = max(0, last - size) if end else bisect_left(numbers, start)
    last = last if end else min(first + size, len(numbers))
    return Found(list(numbers[first:last]), first > 0, last < len(numbers), len(numbers))


def _page(search: "_Search", *, size: int, start: int, end: int, count: int | None) -> Found:
    """A page of very many."""
    numbers = search.back(end, size + 1) if end else search.ahead(start, size + 1)
    there = sorted(numbers[:size])
    first, last = (there[0], there[-1]) if there else (start, end)
    from_the_first = not end and start <= 1
    others = not from_the_first and bool(search.ahead(last + 1, 1) if end else search.back(first - 1, 1))
    beyond = len(numbers) > size
    if from_the_first and not beyond:
        count = len(numbers)
    return Found(there, *((beyond, others) if end else (others, beyond)), count)


def iter_found(survey: Path, wanted: Wanted) -> Iterator[int]:
    """The numbers of all rows that are wanted, in order; however long that takes."""
    if plan := _plan(wanted):
        with _opened(survey) as database:
            for texts in _texts_of(database, plan):
                for (number,) in database.execute(plan.select(f"ORDER BY {plan.number}", texts=texts), plan.values):
                    yield number


# Of the few sets of roles that there are, those with this one: each is found by one step through the index.
_ROLES = """rows.roles IN (WITH RECURSIVE sets(roles) AS (
  SELECT min(roles) FROM rows UNION ALL SELECT (SELECT min(roles) FROM rows WHERE roles > sets.roles) FROM sets
  WHERE sets.roles IS NOT NULL) SELECT roles FROM sets WHERE instr(roles, ?))"""


def _plan(wanted: Wanted) -> _Plan | None:
    """None when what is looked for is signs alone, which are no words. No typed text becomes part of a statement."""
    query = as_query(wanted.q)
    if wanted.q.strip() and not query:
        return None
    ids = None if wanted.ids is None else json.dumps(sorted(wanted.ids))
    number = _number(query, wanted)
    possible: list[tuple[str, object]] = [
        ("texts.text MATCH ?", query),
        (_ROLES, wanted.role and f" {wanted.role} "),
        ("rows.split = ?", wanted.split),
        ("rows.script = ?", wanted.script),
        ("rows.characters >= ?", wanted.shortest),
        ("rows.characters <= ?", wanted.longest),
        ("rows.turns >= ?", wanted.turns),
        ("rows.turns <= ?", wanted.turns_to),
        ("rows.id IN (SELECT value FROM json_each(?))", ids),
        ("says.value = (SELECT value FROM said WHERE text = ?)", wanted.column),
        _finding(wanted.finding, number),
    ]
    chosen = [(text, value) for text, value in possible if value not in (None, "")]
    where = " AND ".join(["1", *(text for text, _ in chosen)])
    return _Plan(_source(query, wanted, where), where, [value for _, value in chosen], number)


def _finding(name: str, number: str) -> tuple[str, object]:
    own = "findings.kind = ?" if name != ANY_FINDING else "?"
    value = 1 if name == ANY_FINDING else name
    if number == "findings.number":
        return own, value
    return f"EXISTS (SELECT 1 FROM findings WHERE findings.number = {number} AND {own})", value  # noqa: S608 # as above


def _source(query: str, wanted: Wanted, where: str) -> str:
    """The tables in the order in which they are gone through: what leaves the fewest rows first."""
    number = _number(query, wanted)
    source = "{texts} AS texts" if query else number.partition(".")[0]
    if query and wanted.column:
        source += " CROSS JOIN says ON says.number = texts.rowid"
    if source != "rows" and "rows." in where:
        source += f" CROSS JOIN rows ON rows.number = {number}"
    return source


def _number(query: str, wanted: Wanted) -> str:
    """The column whose order is the order of the first table."""
    if query:
        return "texts.rowid"
    if wanted.column:
        return "says.number"
    return "findings.number" if wanted.finding else "rows.number"


@dataclass
class _Search:
    """A plan on its way. texts: the tables of texts it goes through, or a nameless one where it needs none."""

    database: sqlite3.Connection
    plan: _Plan
    texts: list[str]
    until: float = 0.0

    def ahead(self, number: int, most: int) -> list[int]:
        """Up to `most` rows from this one on."""
        rest = f"AND {self.plan.number} >= ? ORDER BY {self.plan.number} LIMIT ?"
        return self._through(self.texts[part_of(number, self.texts) :], rest, [number], most)

    def back(self, number: int, most: int) -> list[int]:
        """Up to `most` rows up to this one, the last first."""
        rest = f"AND {self.plan.number} <= ? ORDER BY {self.plan.number} DESC LIMIT ?"
        return self._through(self.texts[part_of(number, self.texts) :: -1], rest, [number], most)

    def some(self, most: int) -> list[int]:
        """Up to `most` rows in any order: an index may have them a hundred times sooner than in that of the rows."""
        return self._through(self.texts, "LIMIT ?", [], most, in_order=False)

    def _through(
        self, texts: list[str], rest: str, values: list[object], most: int, *, in_order: bool = True
    ) -> list[int]:
        found: list[int] = []
        for one in texts:
            statement = self.plan.select(rest, texts=one, in_order=in_order)
            found += self._numbers(statement, [*self.plan.values, *values, most - len(found)])
            if len(found) == most:
                break
            if time.monotonic() > self.until and one != texts[-1]:
                raise TooSlow
        return found

    def _numbers(self, statement: str, values: list[object]) -> list[int]:
        try:
            return [number for (number,) in self.database.execute(statement, values)]
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT:  # whatever it says; a damaged file is no slow one
                raise TooSlow from error
            raise

    @contextmanager
    def limited(self, seconds: float) -> Iterator[None]:
        """Break off what takes longer."""
        self.until = until = time.monotonic() + seconds
        self.database.set_progress_handler(lambda: time.monotonic() > until, STEPS)
        try:
            yield
        finally:
            self.database.set_progress_handler(None, 0)


def _texts_of(database: sqlite3.Connection, plan: _Plan) -> list[str]:
    if plan.number != "texts.rowid":
        return [""]
    return [name for (name,) in database.execute(PARTS)]


def _count(search: _Search, *, key: tuple[object, ...]) -> tuple[_All, int | None]:
    """All numbers, if they are few, and how many; remembered, for a survey never changes."""
    if found := _remembered.get(key):
        return found
    with search.limited(COUNT_SECONDS):
        try:
            numbers = search.some(MOST_COUNTED + 1)
        except TooSlow:
            return None, None  # perhaps only now, on a busy machine
    found = array("q", sorted(numbers)) if len(numbers) <= MOST_COUNTED else None, len(numbers)
    _remembered[key] = found
    if len(_remembered) > MOST_REMEMBERED:
        _remembered.popitem(last=False)
    return found


@contextmanager
def _opened(survey: Path) -> Iterator[sqlite3.Connection]:
    """The file as nobody may change it: no locks are taken, and none are waited for."""
    address = f"file:{quote(str(survey))}?mode=ro&immutable=1"
    with closing(sqlite3.connect(address, uri=True, check_same_thread=False)) as database:
        yield database
