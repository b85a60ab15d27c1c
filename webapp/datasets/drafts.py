"""What a person means to change in a version: collected row by row, undone one by one, saved as the next version."""

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from django.db import transaction
from django.db.models import QuerySet, Sum

from trainer.formats.canonical import Content, Row, canonical_json
from trainer.formats.comparing import content_ids
from webapp.accounts.models import User
from webapp.common.errors import UserError
from webapp.common.words import number_text
from webapp.datasets import versions
from webapp.datasets.models import Dataset, DatasetVersion, DraftChange

Action = DraftChange.Action
MOST_NAMED = 5  # rows in a sentence
LABEL_LENGTH = 120
LABEL_START = 25  # characters of each of several rows


@dataclass(frozen=True)
class Summary:
    """How many rows a draft changes."""

    edited: int = 0
    removed: int = 0
    added: int = 0

    def __bool__(self) -> bool:
        return bool(self.edited or self.removed or self.added)

    def __str__(self) -> str:
        told = (("edited", self.edited), ("removed", self.removed), ("added", self.added))
        return ", ".join(f"{number_text(count)} {what}" for what, count in told if count)


def changes_of(user: User, version: DatasetVersion) -> "QuerySet[DraftChange]":
    return DraftChange.objects.visible_to(user).filter(version=version)


def summary(user: User, version: DatasetVersion) -> Summary:
    counted = changes_of(user, version).order_by().values_list("action").annotate(Sum("count"))
    by_action = {str(action): int(total) for action, total in counted}
    return Summary(by_action.get("edit", 0), by_action.get("remove", 0), by_action.get("add", 0))


def change_of_row(user: User, version: DatasetVersion, row_id: str) -> DraftChange | None:
    """What the draft does to a row. A removal of many has no row of its own."""
    own = changes_of(user, version).filter(row_id=row_id).first()
    if own is None:
        many = changes_of(user, version).filter(action=Action.REMOVE, row_id="")
        own = next((change for change in many if row_id in change.row_ids), None)
    return own


def states(user: User, version: DatasetVersion, row_ids: Collection[str]) -> dict[str, str]:
    """Which of these rows the draft edits or removes, by their ids."""
    draft = changes_of(user, version)
    found = dict(draft.filter(row_id__in=row_ids).values_list("row_id", "action"))
    for gone in draft.filter(action=Action.REMOVE, row_id="").values_list("row_ids", flat=True):
        found |= dict.fromkeys(set(row_ids).intersection(gone), str(Action.REMOVE))
    return found


def row_mark(change: DraftChange | None, row: Row | None = None) -> str:
    """What was seen of a row when its editor was opened: whoever saves over something newer is told."""
    if change is not None:
        return f"{change.pk}:{Content(**json.loads(change.shape)).content_id}" if change.shape else str(change.pk)
    return row.content_id if row else ""


def edit_row(*, user: User, version: DatasetVersion, row: Row, number: int, content: Content, seen: str) -> None:
    """Put an edit of a row into the draft, in place of an earlier one. An edit back to what it was is none."""
    with transaction.atomic():
        _lock(version)
        change = change_of_row(user, version, row.id)
        if change and change.action == Action.REMOVE:
            raise UserError("row_removed")
        if seen != row_mark(change, row):
            raise UserError("row_changed_meanwhile")
        if content.content_id == row.content_id:
            changes_of(user, version).filter(row_id=row.id).delete()
            return
        told = {"action": Action.EDIT, "number": number, "shape": _text(content), "label": _label(content)}
        DraftChange.objects.update_or_create(version=version, user=user, row_id=row.id, defaults=told)


def add_row(*, user: User, version: DatasetVersion, content: Content) -> DraftChange:
    told = {"action": Action.ADD, "shape": _text(content), "label": _label(content)}
    return DraftChange.objects.create(version=version, user=user, **told)


def edit_added(*, user: User, change: DraftChange, content: Content, seen: str) -> None:
    """Edit a row that is only in the draft."""
    with transaction.atomic():
        _lock(change.version)
        now = changes_of(user, change.version).filter(pk=change.pk).first()
        if now is None or seen != row_mark(now):
            raise UserError("row_changed_meanwhile")
        changes_of(user, change.version).filter(pk=change.pk).update(shape=_text(content), label=_label(content))


def remove_row(*, user: User, version: DatasetVersion, row: Row, number: int) -> None:
    """Put the removal of one row into the draft, named by its question."""
    if remove_rows(user=user, version=version, row_ids=[row.id], label=_label(row)):
        changes_of(user, version).filter(row_id=row.id).update(number=number)


def remove_rows(*, user: User, version: DatasetVersion, row_ids: Iterable[str], label: str = "") -> int:
    """Put the removal of rows into the draft, as one change that is undone as one. Returns how many are new in it.

    Edits of these rows go from the draft. `row_ids` must be rows of the version.
    """
    with transaction.atomic():
        _lock(version)
        draft = changes_of(user, version)
        gone = _removed(draft)
        new = [one for one in dict.fromkeys(row_ids) if one not in gone]
        wanted = set(new)
        stale = [change.pk for change in draft.filter(action=Action.EDIT) if change.row_id in wanted]
        draft.filter(pk__in=stale).delete()
        if len(new) == 1:
            told = {"action": Action.REMOVE, "label": label[:200]}
            DraftChange.objects.update_or_create(version=version, user=user, row_id=new[0], defaults=told)
        elif new:
            many: dict[str, Any] = {"row_ids": new, "count": len(new), "label": label[:200]}
            DraftChange.objects.create(version=version, user=user, action=Action.REMOVE, **many)
    return len(new)


def remove_numbered(*, user: User, version: DatasetVersion, rows: Mapping[int, Row]) -> None:
    """Put the removal of rows into the draft that are known by their numbers; those it removes already stay so."""
    known = states(user, version, [row.id for row in rows.values()])
    new = {number: row for number, row in rows.items() if known.get(row.id) != Action.REMOVE}
    if len(new) == 1:
        ((number, row),) = new.items()
        remove_row(user=user, version=version, row=row, number=number)
        return
    remove_rows(user=user, version=version, row_ids=[row.id for row in new.values()], label=_named_rows(new))


def _named_rows(rows: Mapping[int, Row]) -> str:
    """Rows by their numbers, each with how its question begins, as far as there is room for."""
    told = "; ".join(f"{number_text(number)} “{_label(row)[:LABEL_START]}”" for number, row in rows.items())
    return told if len(told) <= LABEL_LENGTH else told[: LABEL_LENGTH - 1] + "…"


def undo(change: DraftChange) -> None:
    DraftChange.objects.filter(pk=change.pk).delete()


def discard(*, user: User, version: DatasetVersion) -> None:
    changes_of(user, version).delete()


def save(
    *, user: User, version: DatasetVersion, note: str, newest: int | None = None, onto: int | None = None
) -> DatasetVersion:
    """The draft as the next version; it is empty afterwards.

    newest: number of the newest version the person knew of; UserError when there is one they have not seen.
    onto: number of the version to change, this one or the newest. Nothing of a newer version is undone: UserError
    names the rows that both changed.
    """
    with transaction.atomic():
        Dataset.objects.select_for_update().get(pk=version.dataset_id)
        _lock(version)
        target = _target(version, newest=newest, onto=onto)
        changes = as_changes(user, version)
        if target != version:
            changes = _moved_onto(target, version, changes_of(user, version), changes)
        changes_of(user, version).delete()
        return versions.revise(user=user, version=target, changes=changes, note=note)


def as_changes(user: User, version: DatasetVersion) -> dict[str, Any]:
    """The draft as `revise` takes it."""
    draft = list(changes_of(user, version))
    return {
        "remove": sorted(_removed(draft)),
        "edit": {one.row_id: json.loads(one.shape) for one in draft if one.action == Action.EDIT},
        "add": [json.loads(one.shape) for one in draft if one.action == Action.ADD],
    }


def _target(version: DatasetVersion, *, newest: int | None, onto: int | None) -> DatasetVersion:
    last = version.dataset.newest or version
    if newest is not None and last.number != newest:
        raise UserError("newer_version", number=last.number, who=last.created_by or "somebody", own=version.number)
    return last if onto == last.number else version


def _moved_onto(
    target: DatasetVersion, version: DatasetVersion, draft: "QuerySet[DraftChange]", changes: dict[str, Any]
) -> dict[str, Any]:
    """The same changes for a newer version. Rows that are gone there need no removal; rows changed there are named."""
    if not target.is_ready:
        raise UserError("dataset_not_ready", status=target.status)
    touched = {*changes["remove"], *changes["edit"]}
    before, now = content_ids(version.rows_path, touched), content_ids(target.rows_path, touched)
    remove = [one for one in changes["remove"] if one in now]
    both = [one for one in (*remove, *changes["edit"]) if before.get(one) != now.get(one)]
    if both:
        raise UserError("draft_conflict", number=target.number, rows=_named(draft, both))
    return changes | {"remove": remove}


def _named(draft: "QuerySet[DraftChange]", row_ids: list[str]) -> str:
    """Rows as people know them: by how their questions begin, where many were removed at once by their ids."""
    labels = dict(draft.filter(row_id__in=row_ids[:MOST_NAMED]).values_list("row_id", "label"))
    named = ", ".join(f"“{labels.get(one) or one}”" for one in row_ids[:MOST_NAMED])
    return named + (f" and {number_text(len(row_ids) - MOST_NAMED)} more" if len(row_ids) > MOST_NAMED else "")


def _removed(draft: Iterable[DraftChange]) -> set[str]:
    gone = [one for one in draft if one.action == Action.REMOVE]
    return {row_id for one in gone for row_id in ([one.row_id] if one.row_id else one.row_ids)}


def _lock(version: DatasetVersion) -> None:
    """Changes to drafts of a version wait for each other."""
    DatasetVersion.objects.select_for_update().only("pk").get(pk=version.pk)


def _text(content: Content) -> str:
    return canonical_json(content.shape())


def _label(content: Content) -> str:
    """What a person knows the row by: how its question begins."""
    messages = [*content.messages, *content.prompt]
    asked = next((message for message in messages if message["role"] == "user"), None)
    text = content.text or (asked or {}).get("content") or ""
    return " ".join(text.split())[:LABEL_LENGTH]
