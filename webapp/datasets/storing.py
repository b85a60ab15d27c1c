"""How the files of a dataset version come to lie in its folder, and how its row is added: both or neither."""

import hashlib
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeAlias
from uuid import uuid4
from zipfile import ZIP_STORED, ZipFile, ZipInfo

from django.conf import settings
from django.core.files import File
from django.db import transaction

from trainer.formats.sample import SAMPLE
from webapp.accounts.models import User
from webapp.common.errors import UserError
from webapp.common.storage import dataset_folder, link, sha256_of, staged_folder
from webapp.common.words import bytes_text
from webapp.datasets.models import Dataset, DatasetVersion, Upload
from webapp.datasets.tasks import ring

CHUNK = 1024 * 1024
BAD_LINES = "bad.jsonl"


# What a version is made of: a file of this request, or one that arrived in parts
Original: TypeAlias = "File[bytes] | Upload"


def stored_all(files: Sequence[Original]) -> DatasetVersion:
    """One version of one file, or of several as a zip of them; not saved yet."""
    if len(files) > 1:
        return _zipped(files)
    (only,) = files
    return _moved_in(only.path, only.name) if isinstance(only, Upload) else stored(only)


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


def _moved_in(path: Path, name: str) -> DatasetVersion:
    """A file of ours becomes the original of a new version, which is not saved yet; no byte is copied."""
    version_id, size = uuid4(), path.stat().st_size
    if not size:
        raise UserError("upload_empty")
    sha256 = sha256_of(path)
    with staged_folder(dataset_folder(version_id)) as folder:
        link(path, folder / "original")
    return DatasetVersion(id=version_id, original_name=plain_name(name), original_sha256=sha256, size=size)


def _zipped(files: Sequence[Original]) -> DatasetVersion:
    """A zip of the files, not compressed again; the same files make the same zip."""
    version_id, size = uuid4(), 0
    with staged_folder(dataset_folder(version_id)) as folder:
        with ZipFile(folder / "original", "w", ZIP_STORED) as archive:
            for name, file in zip(_distinct([plain_name(one.name) for one in files]), files, strict=True):
                with archive.open(ZipInfo(name), "w", force_zip64=True) as out:
                    for chunk in chunks_of(file):
                        size += len(chunk)
                        check_size(size)
                        out.write(chunk)
        sha256, size = sha256_of(folder / "original"), (folder / "original").stat().st_size
    name = f"{len(files)} files.zip"
    return DatasetVersion(id=version_id, original_name=name, original_sha256=sha256, size=size)


def chunks_of(file: Original) -> Iterator[bytes]:
    if not isinstance(file, Upload):
        yield from file.chunks()
        return
    with file.path.open("rb") as reader:
        while chunk := reader.read(CHUNK):
            yield chunk


def _distinct(names: list[str]) -> list[str]:
    """The names, with a number before those that were there already."""
    seen: set[str] = set()
    for number, name in enumerate(names):
        seen_before = name.casefold() in seen
        names[number] = f"{number + 1} {name}" if seen_before else name
        seen.add(names[number].casefold())
    return names


def same_original(version: DatasetVersion, **extra: Any) -> DatasetVersion:
    """A new version of the same original, which is not saved yet; `extra` is how it is read this time."""
    told = {name: getattr(version, name) for name in ("original_name", "original_sha256", "size", "source")}
    copy = DatasetVersion(id=uuid4(), **told | {"skip_bad_rows": version.skip_bad_rows} | extra)
    with staged_folder(copy.folder) as folder:
        if version.original_path.is_file():  # rows made from a parent's have none
            link(version.original_path, folder / "original")
    return copy


def link_inspected(version: DatasetVersion, folder: Path) -> None:
    """What an inspection found, for a version of the same rows: it needs none of its own."""
    for file in (version.rows_path, version.folder / "report.json"):
        link(file, folder / file.name)
    for file in (version.folder / SAMPLE, version.folder / BAD_LINES):
        if file.is_file():
            link(file, folder / file.name)


def check_size(size: int) -> None:
    if size > settings.MAX_UPLOAD_BYTES:
        raise UserError("upload_too_large", limit=bytes_text(settings.MAX_UPLOAD_BYTES))


def add_version(dataset: Dataset, version: DatasetVersion, *, user: User) -> None:
    """Save the version under the dataset's next number and ring for its inspection, inside a transaction."""
    Dataset.objects.select_for_update().get(pk=dataset.pk)  # of two uploads at once, one waits for the other's number
    version.dataset, version.number, version.created_by = dataset, dataset.next_number, user
    version.save(force_insert=True)
    if version.is_pending:
        transaction.on_commit(lambda: ring(version.pk))


@contextmanager
def files_removed_on_failure(versions: Iterable[DatasetVersion]) -> Iterator[None]:
    with ExitStack() as undo:
        undo.callback(lambda: remove([version.folder for version in versions]))
        yield
        undo.pop_all()


def plain_name(name: str | None) -> str:
    """The name people know a file by; never used as a path."""
    last = Path((name or "").replace("\0", "")).name
    return "".join(character for character in last if character.isprintable())[-255:] or "upload"


def remove(folders: list[Path]) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
