"""Files that arrive in parts: begun, continued after whatever interrupts them, given up, made into datasets."""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import BinaryIO, Protocol

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from webapp.accounts.models import Team, User
from webapp.common.errors import UserError
from webapp.datasets.models import Dataset, DatasetVersion, Upload
from webapp.datasets.storing import (
    Original,
    add_version,
    check_size,
    files_removed_on_failure,
    plain_name,
    stored_all,
)

KEPT = timedelta(days=1)  # after its last part
MOST_AT_ONCE = 100  # of one person, not finished
PIECE = 1024 * 1024
ROOM_KEPT = 512 * 1024 * 1024  # of the disk, for the database and whoever trains
HASHES = ("sha256", "sha1")


class Body(Protocol):
    def read(self, size: int, /) -> bytes: ...


@dataclass(frozen=True)
class Checksum:
    """What a part should hash to; `algorithm` is one of HASHES."""

    algorithm: str
    digest: bytes


def begin(*, user: User, name: str, size: int, fingerprint: str = "") -> Upload:
    """Room for a file of so many bytes."""
    check_size(size)
    if not size:
        raise UserError("upload_empty")
    if Upload.objects.visible_to(user).count() >= MOST_AT_ONCE:
        raise UserError("too_many_uploads", limit=MOST_AT_ONCE)
    upload = Upload(user=user, name=plain_name(name), size=size, fingerprint=fingerprint[:100])
    upload.path.parent.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(upload.path.parent).free < size + ROOM_KEPT:
        raise UserError("upload_no_room")
    upload.path.touch(exist_ok=False)
    upload.save(force_insert=True)
    return upload


def offset_of(upload: Upload) -> int:
    """How many bytes are here."""
    try:
        return upload.path.stat().st_size
    except FileNotFoundError:
        raise UserError("upload_gone") from None


def take(upload: Upload, *, offset: int, body: Body, checksum: Checksum | None = None) -> int:
    """Append a part that begins at `offset`; returns how many bytes are here then. All of the part is kept, or nothing.

    Raises UserError when another part is being written, when the part does not join what is here, or is damaged.
    """
    with _held(upload) as file:
        here = file.seek(0, os.SEEK_END)
        if offset != here:
            raise UserError("upload_offset", offset=here)
        kept = False
        try:
            _append(upload, file, body, checksum)
            kept = True
        except OSError as error:  # the disk is full, most of all
            raise UserError("upload_no_room") from error
        finally:
            if not kept:
                file.truncate(here)
        end = file.seek(0, os.SEEK_END)
    Upload.objects.filter(pk=upload.pk).update(touched_at=timezone.now())
    return end


def _append(upload: Upload, file: BinaryIO, body: Body, checksum: Checksum | None) -> None:
    digest = hashlib.new(checksum.algorithm) if checksum else None
    while piece := body.read(PIECE):
        if file.tell() + len(piece) > upload.size:
            raise UserError("upload_too_long")
        file.write(piece)
        if digest:
            digest.update(piece)
    if checksum and digest and digest.digest() != checksum.digest:
        raise UserError("upload_damaged")
    file.flush()
    os.fsync(file.fileno())  # what we say is here must be here after a power cut


@contextmanager
def _held(upload: Upload) -> Iterator[BinaryIO]:
    """The file, for one writer at a time. The kernel lets go of it when a process dies, however it dies."""
    try:
        file = upload.path.open("r+b", buffering=0)
    except FileNotFoundError:
        raise UserError("upload_gone") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError("upload_busy") from None
        yield file


def discard(upload: Upload) -> None:
    """Forget it and its file. While a part is being written that is refused."""
    if upload.path.exists():
        with _held(upload):
            upload.path.unlink(missing_ok=True)
    upload.delete()


def forget(files: list[Original]) -> None:
    """Of uploads that became something, inside that transaction: the bytes stay under its name."""
    used = [file for file in files if isinstance(file, Upload)]
    if not used:
        return
    deleted, _ = Upload.objects.filter(pk__in=[upload.pk for upload in used]).delete()
    if deleted < len(used):  # the same form was sent twice: one of them wins
        raise UserError("upload_gone")
    transaction.on_commit(partial(_unlink, [upload.path for upload in used]))


def _unlink(paths: list[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def make_datasets(*, user: User, team: Team, groups: list[tuple[str, list[Original]]]) -> list[Dataset]:
    """A new dataset of each group of files, by name; all of them or none. The inspections follow by themselves."""
    refuse_unfinished([file for _, files in groups for file in files])
    versions: list[DatasetVersion] = []
    with files_removed_on_failure(versions):
        for _, files in groups:
            versions.append(stored_all(files))
        with transaction.atomic():
            made = [Dataset.objects.create(team=team, name=name, created_by=user) for name, _ in groups]
            for dataset, version in zip(made, versions, strict=True):
                add_version(dataset, version, user=user)
            forget([file for _, files in groups for file in files])
    return made


def make_version(*, user: User, dataset: Dataset, files: list[Original], note: str = "") -> DatasetVersion:
    """The files as the dataset's next version."""
    refuse_unfinished(files)
    version = stored_all(files)
    version.note = note
    with files_removed_on_failure([version]), transaction.atomic():
        add_version(dataset, version, user=user)
        forget(files)
    return version


def refuse_unfinished(files: list[Original]) -> None:
    """Raise UserError unless all parts of each are here."""
    for file in files:
        if isinstance(file, Upload) and offset_of(file) != file.size:
            raise UserError("upload_unfinished", name=file.name)


def unfinished(user: User) -> list[tuple[Upload, int]]:
    """What a person began to send and did not use yet, with how much of it is here."""
    mine = Upload.objects.visible_to(user).filter(touched_at__gt=timezone.now() - KEPT)
    return [(upload, offset_of(upload)) for upload in mine if upload.path.exists()]


def expires(upload: Upload) -> str:
    """When it goes, as HTTP writes it."""
    return (upload.touched_at + KEPT).strftime("%a, %d %b %Y %H:%M:%S GMT")


def limit() -> int:
    return int(settings.MAX_UPLOAD_BYTES)
