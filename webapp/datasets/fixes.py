"""What a survey found in a version, and the fixes that make the next version of it."""

import sqlite3
from contextlib import closing
from dataclasses import dataclass, replace
from urllib.parse import quote

from django.db import transaction

from trainer.formats.canonical import Content, Row
from trainer.formats.finding_kinds import BY_NAME, KINDS, FindingKind
from trainer.formats.finding_private import masked_shape
from trainer.formats.rows_file import rows_at
from webapp.accounts.models import User
from webapp.common.errors import UserError
from webapp.common.words import number_text
from webapp.datasets import versions
from webapp.datasets.diff import ShownChange, row_changes
from webapp.datasets.models import Dataset, DatasetVersion

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
        details = _details(survey, kind.name, MOST_SHOWN)
    rows = rows_at(version.rows_path, [number for number, _ in details])
    count = version.survey_report["findings"][kind.name]
    changes = [(_change(rows[number], number, kind), told) for number, told in details if number in rows]
    return Preview(kind, count, version.row_count - (count if kind.fix == "remove" else 0), changes)


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
    said = masked_shape(row, kind.name)
    return replace(row, **{name: value for name, value in said.items() if name in Content.__dataclass_fields__})


def _ids(version: DatasetVersion, kind: FindingKind) -> list[str]:
    statement = "SELECT rows.id FROM findings JOIN rows USING (number) WHERE kind = ? ORDER BY number"
    with _opened(version) as survey:
        return [row_id for (row_id,) in survey.execute(statement, [kind.name])]


def _details(survey: sqlite3.Connection, name: str, most: int) -> list[tuple[int, str]]:
    statement = "SELECT number, detail FROM findings WHERE kind = ? ORDER BY number LIMIT ?"
    return survey.execute(statement, [name, most]).fetchall()


def _opened(version: DatasetVersion) -> "closing[sqlite3.Connection]":
    address = f"file:{quote(str(version.survey_path))}?mode=ro&immutable=1"
    return closing(sqlite3.connect(address, uri=True))
