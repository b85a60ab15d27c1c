"""What a survey found in a version, and the fixes that make the next version of it."""

import logging
import sqlite3
from contextlib import closing
from dataclasses import dataclass, replace
from urllib.parse import quote

from django.db import transaction

from trainer.formats.canonical import Content, Row
from trainer.formats.finding_kinds import BY_NAME, KINDS, FindingKind, other_row
from trainer.formats.finding_private import mask_row
from trainer.formats.rows_file import rows_at
from webapp.accounts.models import User
from webapp.common.errors import UserError
from webapp.common.words import number_text
from webapp.datasets import versions
from webapp.datasets.diff import ShownChange, row_changes
from webapp.datasets.models import Dataset, DatasetVersion

logger = logging.getLogger(__name__)

MOST_SHOWN = 10  # rows of a preview
EXAMPLES = 3


@dataclass(frozen=True)
class Found:
    """A kind of finding that a version has: how many rows, and what is told of the first ones."""

    kind: FindingKind
    rows: int
    examples: list[tuple[int, str]]


@dataclass(frozen=True)
class Preview:
    """What a fix will do: how many rows it changes, how many are left, and the first ones with what was found."""

    kind: FindingKind
    rows: int
    left: int
    changes: list[tuple[ShownChange, str]]

    @property
    def note(self) -> str:
        done = "Masked" if self.kind.fix == "mask" else "Removed"
        return f"{done}: {self.kind.title.lower()}, {number_text(self.rows)} row{'' if self.rows == 1 else 's'}"


def findings_of(version: DatasetVersion) -> list[Found]:
    """All kinds that were found, the gravest first."""
    counts = version.survey_report.get("findings", {})
    there = [kind for kind in KINDS if counts.get(kind.name)]
    if not there or not version.survey_path.is_file():
        return []
    with _opened(version) as survey:
        return [Found(kind, counts[kind.name], _details(survey, kind.name, EXAMPLES)) for kind in there]


@dataclass(frozen=True)
class Told:
    """What was found in one row; `other` is the number of the row that it names, None without one."""

    kind: FindingKind
    detail: str
    other: int | None


def told_of_row(version: DatasetVersion, number: int) -> list[Told]:
    """All that was found in a row, the gravest first."""
    if not version.survey_report.get("findings") or not version.survey_path.is_file():
        return []
    try:
        with _opened(version) as survey:
            found = dict(survey.execute("SELECT kind, detail FROM findings WHERE number = ?", [number]))
    except sqlite3.DatabaseError:  # a damaged file: the row itself lies elsewhere
        logger.exception("The survey of %s cannot be read", version.pk)
        return []
    there = [(kind, found[kind.name]) for kind in KINDS if kind.name in found]
    return [Told(kind, detail, other_row(detail) if kind.names else None) for kind, detail in there]


def fixable(version: DatasetVersion, name: str) -> FindingKind:
    """The kind that a fix of this name mends in the version. Raises UserError where it cannot be made."""
    kind = BY_NAME.get(name)
    if kind is None or not kind.fix or not version.survey_report.get("findings", {}).get(name):
        raise UserError("finding_gone", number=version.number)
    newest = version.dataset.newest
    if newest and newest.pk != version.pk:
        raise UserError("finding_of_older", number=version.number, newest=newest.number)
    return kind


def preview(version: DatasetVersion, kind: FindingKind) -> Preview:
    with _opened(version) as survey:
        [(count,)] = survey.execute(_mended(kind, "COUNT(*)"), [kind.name])
        first = _mended(kind, "number, detail", "ORDER BY number LIMIT ?")
        details = survey.execute(first, [kind.name, MOST_SHOWN]).fetchall()
    rows = rows_at(version.rows_path, [number for number, _ in details])
    changes = [(_change(rows[number], number, kind), told) for number, told in details if number in rows]
    return Preview(kind, count, version.row_count - (0 if kind.fix == "mask" else count), changes)


def fix(*, user: User, version: DatasetVersion, name: str, note: str = "") -> DatasetVersion:
    """The next version, without what was found. Raises UserError when a newer one was made meanwhile."""
    with transaction.atomic():
        Dataset.objects.select_for_update().get(pk=version.dataset_id)
        kind = fixable(version, name)
        shown = preview(version, kind)
        if not shown.left:
            raise UserError("nothing_left")
        changes = {"mask": [kind.name]} if kind.fix == "mask" else {"remove": _ids(version, kind)}
        return versions.revise(user=user, version=version, changes=changes, note=note.strip() or shown.note)


def _change(row: Row, number: int, kind: FindingKind) -> ShownChange:
    after = _masked_row(row, kind) if kind.fix == "mask" else None
    return ShownChange(number, number if after else None, row_changes(row, after), ("", ""))


def _masked_row(row: Row, kind: FindingKind) -> Row:
    said = mask_row(row, kind.name)
    return replace(row, **{name: value for name, value in said.items() if name in Content.__dataclass_fields__})


def _ids(version: DatasetVersion, kind: FindingKind) -> list[str]:
    statement = _mended(kind, "(SELECT id FROM rows WHERE rows.number = findings.number)", "ORDER BY number")
    with _opened(version) as survey:
        return [row_id for (row_id,) in survey.execute(statement, [kind.name])]


def _mended(kind: FindingKind, what: str, rest: str = "") -> str:
    """Of the rows that a fix changes."""
    which = " AND other_row(detail) < number" if kind.fix == "first" else ""
    return f"SELECT {what} FROM findings WHERE kind = ?{which} {rest}"  # noqa: S608 # pieces of this file


def _details(survey: sqlite3.Connection, name: str, most: int) -> list[tuple[int, str]]:
    statement = "SELECT number, detail FROM findings WHERE kind = ? ORDER BY number LIMIT ?"
    return survey.execute(statement, [name, most]).fetchall()


def _opened(version: DatasetVersion) -> "closing[sqlite3.Connection]":
    address = f"file:{quote(str(version.survey_path))}?mode=ro&immutable=1"
    survey = sqlite3.connect(address, uri=True)
    survey.create_function("other_row", 1, other_row, deterministic=True)
    return closing(survey)
