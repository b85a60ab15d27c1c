"""How the files of a dataset version come to lie in its folder, and how its row is added: both or neither."""

import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from django.conf import settings
from django.core.files import File
from django.db import transaction
from django.db.models import Max

from webapp.accounts.models import User
from webapp.common.errors import UserError
from webapp.common.storage import dataset_folder, sha256_of, staged_folder
from webapp.common.words import bytes_text
from webapp.datasets.models import Dataset, DatasetVersion
from webapp.datasets.tasks import ring


def stored(file: "File[bytes]") -> DatasetVersion:
    """Write an upload piece by piece to the folder of a new version, which is not saved yet."""
    check_size(file.size or 0)
    version_id, digest, size = uuid4(), hashlib.sha256(), 0
    with staged_folder(dataset_folder(version_id)) as folder, (folder / "original").open("wb") as out:
        for chunk in file.chunks():
            size += len(chunk)
            check_size(size)
            digest.update(chunk)
            out.write(chunk)
        if not size:
            raise UserError("upload_empty")
    sha256 = digest.hexdigest()
    return DatasetVersion(id=version_id, original_name=plain_name(file.name), original_sha256=sha256, size=size)


def moved_in(path: Path, name: str) -> DatasetVersion:
    """A file of ours becomes the original of a new version, which is not saved yet; no byte is copied."""
    version_id, size = uuid4(), path.stat().st_size
    if not size:
        raise UserError("upload_empty")
    sha256 = sha256_of(path)
    with staged_folder(dataset_folder(version_id)) as folder:
        link(path, folder / "original")
    return DatasetVersion(id=version_id, original_name=plain_name(name), original_sha256=sha256, size=size)


def same_original(version: DatasetVersion, **extra: Any) -> DatasetVersion:
    """A new version of the same original, which is not saved yet; `extra` is how it is read this time."""
    told = {name: getattr(version, name) for name in ("original_name", "original_sha256", "size", "source")}
    copy = DatasetVersion(id=uuid4(), **told | {"skip_bad_rows": version.skip_bad_rows} | extra)
    with staged_folder(copy.folder) as folder:
        link(version.original_path, folder / "original")
    return copy


def check_size(size: int) -> None:
    if size > settings.MAX_UPLOAD_BYTES:
        raise UserError("upload_too_large", limit=bytes_text(settings.MAX_UPLOAD_BYTES))


def add_version(dataset: Dataset, version: DatasetVersion, *, user: User) -> None:
    """Save the version under the dataset's next number and ring for its inspection, inside a transaction."""
    Dataset.objects.select_for_update().get(pk=dataset.pk)  # of two uploads at once, one waits for the other's number
    newest = dataset.versions.aggregate(newest=Max("number"))["newest"]
    version.dataset, version.number, version.created_by = dataset, (newest or 0) + 1, user
    version.save(force_insert=True)
    if version.is_pending:
        transaction.on_commit(lambda: ring(version.pk))


@contextmanager
def files_removed_on_failure(versions: Iterable[DatasetVersion]) -> Iterator[None]:
    with ExitStack() as undo:
        undo.callback(remove, [version.folder for version in versions])
        yield
        undo.pop_all()


def plain_name(name: str | None) -> str:
    """The name people know a file by; never used as a path."""
    last = Path((name or "").replace("\0", "")).name
    return "".join(character for character in last if character.isprintable())[-255:] or "upload"


def link(source: Path, target: Path) -> None:
    """The same bytes under a second name: no version's original is ever written to."""
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)


def remove(folders: list[Path]) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
