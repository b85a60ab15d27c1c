"""What a draft does to each row, as its page shows it."""

import json
from collections.abc import Iterable
from dataclasses import fields

from trainer.formats.canonical import Content, Row
from trainer.formats.rows_file import rows_at
from webapp.datasets.diff import ShownSection, row_changes
from webapp.datasets.models import DatasetVersion, DraftChange

MOST_SHOWN = 50  # changes whose rows are read


def shown_changes(
    version: DatasetVersion, changes: Iterable[DraftChange]
) -> list[tuple[DraftChange, list[ShownSection]]]:
    """Each change with what becomes of the row, section by section; nothing where many rows go at once."""
    every = list(changes)
    known = [one.number for one in every[:MOST_SHOWN] if one.number]
    rows = rows_at(version.rows_path, known) if version.rows_path.is_file() else {}
    return [(one, _sections(one, rows.get(one.number)) if at < MOST_SHOWN else []) for at, one in enumerate(every)]


def _sections(change: DraftChange, before: Row | None) -> list[ShownSection]:
    return row_changes(before, _after(change, before) if change.shape else None)


def _after(change: DraftChange, before: Row | None) -> Row:
    content = Content(**json.loads(change.shape))
    said = {field.name: getattr(content, field.name) for field in fields(Content)}
    return Row(id="", line=0, **said | {"extra": before.extra if before else {}})
