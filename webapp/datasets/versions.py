"""What makes one version of another: changed rows, splits, an older state again; and what ends a single version."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from django.db import transaction

from webapp.accounts.audit import record
from webapp.accounts.models import User
from webapp.common.errors import UserError
from webapp.common.storage import link, staged_folder
from webapp.datasets.lineage import made_of
from webapp.datasets.models import FAILED_CHANGE, REVISED, Dataset, DatasetVersion, Origin
from webapp.datasets.storing import add_version, files_removed_on_failure, link_inspected, remove, same_original, stored

if TYPE_CHECKING:
    from django.core.files import File


def revise(*, user: User, version: DatasetVersion, changes: dict[str, Any], note: str = "") -> DatasetVersion:
    """The next version: this one's rows with `changes`, as `python -m trainer revise` reads them.

    changes: "remove" (row ids), "edit" (row id → row), "add" (rows), "splits" (how to divide), "mask" (kinds of private
    things). What cannot be used rejects the new version; people's edits were checked before.
    """
    asked = {name: value for name, value in changes.items() if value}
    if not asked:
        raise UserError("nothing_to_change")
    made = _next(version, Origin.SPLIT if asked.keys() == {"splits"} else Origin.EDIT, note)
    with staged_folder(made.folder) as folder:
        _link_original(version, folder)
        (folder / made.changes_path.name).write_text(json.dumps(asked, ensure_ascii=False), encoding="utf-8")
    return _added(user, version, made)


def split_by_file(
    *, user: User, version: DatasetVersion, file: "File[bytes]", plan: dict[str, Any], note: str = ""
) -> DatasetVersion:
    """The next version: this one's rows to learn from, and those of the file as the part that `plan` names."""
    made = _next(version, Origin.SPLIT, note)
    upload = stored(file)
    try:
        with staged_folder(made.folder) as folder:
            _link_original(version, folder)
            link(upload.original_path, folder / made.test_file.name)
            (folder / made.changes_path.name).write_text(
                json.dumps({"splits": plan, "file": upload.original_name}), encoding="utf-8"
            )
    finally:
        remove([upload.folder])
    return _added(user, version, made)


def once_more(*, user: User, version: DatasetVersion, skip_bad_rows: bool) -> DatasetVersion:
    """The next version, made as this one was to be: of the same original, or the same changes of the same parent.

    Of two clicks at once, the second gets what the first made.
    """
    told = {"origin": version.origin, "note": version.note, "mapping": version.mapping, "skip_bad_rows": skip_bad_rows}
    parent = version.parent if version.origin in REVISED else None
    with transaction.atomic():
        Dataset.objects.select_for_update().get(pk=version.dataset_id)
        same = {"original_sha256": version.original_sha256, "skip_bad_rows": skip_bad_rows, "parent": parent}
        if under_way := version.dataset.versions.pending().filter(number__gt=version.number, **same).first():
            return under_way
        made = same_original(version, parent=parent, **told)
        with files_removed_on_failure([made]):
            for file in (version.changes_path, version.test_file):
                if file.is_file():
                    link(file, made.folder / file.name)
            add_version(version.dataset, made, user=user)
    return made


def restore(*, user: User, version: DatasetVersion, note: str = "") -> DatasetVersion:
    """The next version, equal to this one: the same files under another name, so there is nothing to inspect."""
    kept = ("status", "content_hash", "row_count", "report", "skip_bad_rows", "mapping", "source")
    made = _next(version, Origin.RESTORE, note or f"Version {version.number} again")
    for field in kept:
        setattr(made, field, getattr(version, field))
    with staged_folder(made.folder) as folder:
        _link_original(version, folder)
        link_inspected(version, folder)
    return _added(user, version, made)


def _next(version: DatasetVersion, origin: Origin, note: str) -> DatasetVersion:
    """A version made of this one, not saved yet."""
    if not version.is_ready:
        raise UserError("dataset_not_ready", status=version.status)
    told = {name: getattr(version, name) for name in ("original_name", "original_sha256", "size")}
    return DatasetVersion(id=uuid4(), parent=version, origin=origin, note=note.strip()[:500], **told)


def _link_original(version: DatasetVersion, folder: Path) -> None:
    if version.original_path.is_file():
        link(version.original_path, folder / "original")


def _added(user: User, version: DatasetVersion, made: DatasetVersion) -> DatasetVersion:
    with files_removed_on_failure([made]), transaction.atomic():
        Dataset.objects.select_for_update().get(pk=version.dataset_id)  # a delete of the parent waits, or was first
        if not DatasetVersion.objects.filter(pk=version.pk).exists():
            raise UserError("row_gone", number=version.number)
        add_version(version.dataset, made, user=user)
    return made


def kept_by(version: DatasetVersion) -> tuple[str, str]:
    """What keeps a version from being deleted and what to do about it; empty texts when nothing does."""
    if made := made_of(DatasetVersion.objects.filter(pk=version.pk)):
        return made, "Delete that first, on its page."
    if child := version.children.pending().first():
        return f"version {child.number} is being made of it", "Wait until that is ready."
    if not version.dataset.versions.exclude(FAILED_CHANGE).exclude(pk=version.pk).exists():
        return "it is the only one", "Delete the dataset instead."
    return "", ""


def delete_version(*, user: User, version: DatasetVersion) -> None:
    """Remove a single version that nothing was made with. Raises UserError with what keeps it."""
    with transaction.atomic():
        Dataset.objects.select_for_update().get(pk=version.dataset_id)
        what, fix = kept_by(version)
        if what:
            raise UserError("version_in_use", what=what, number=version.number, fix=fix)
        folder = version.folder
        record(actor=user, action="dataset.version.delete", team=version.team, target=str(version))
        version.delete()
        transaction.on_commit(lambda: remove([folder]))
