"""Uploads in parts: begun, filled, put together or given up."""

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import IO
from uuid import uuid4

from django.conf import settings
from django.core.files import File
from django.db import transaction
from django.db.models import Sum
from django.utils import timezone

from webapp.accounts.models import Team, User
from webapp.api.fields import bad
from webapp.api.file_store import AnyFile, create_file
from webapp.api.models import PartedUpload, UploadPart, UploadStatus
from webapp.api.wire import ApiError
from webapp.common.errors import UserError
from webapp.common.storage import sync_path
from webapp.common.words import bytes_text
from webapp.datasets.storing import check_size, plain_name
from webapp.datasets.uploads import ROOM_KEPT

LIFETIME = timedelta(hours=1)
LARGEST_PART = 64 << 20
MOST_OPEN = 100  # uploads of one person at once
LARGEST_OPEN, LARGEST_OF_TEAM = 4, 16  # of the largest files: what they and their team may announce together
PIECE = 1 << 20


class JoinedParts(File):  # type: ignore[type-arg]  # what reads it asks for chunks alone
    """Parts read one after the other as one file."""

    def __init__(self, parts: Sequence[UploadPart], name: str) -> None:
        super().__init__(None, name=name)  # there is no one file behind it
        self.parts = parts

    @property
    def size(self) -> int:
        return sum(part.size for part in self.parts)

    def chunks(self, chunk_size: int | None = None) -> Iterator[bytes]:
        for part in self.parts:
            with part.path.open("rb") as file:
                yield from _pieces(file, chunk_size or PIECE)


def _pieces(file: IO[bytes], size: int) -> Iterator[bytes]:
    while piece := file.read(size):
        yield piece


def begin(  # noqa: PLR0913 - what the client says of a file
    *, user: User, team: Team, filename: str, purpose: str, size: int, file_seconds: int | None
) -> PartedUpload:
    check_size(size)
    _require_room(user, team, size)
    facts = {"filename": plain_name(filename), "purpose": purpose, "size": size, "file_seconds": file_seconds}
    return PartedUpload.objects.create(team=team, created_by=user, expires_at=timezone.now() + LIFETIME, **facts)


def _require_room(user: User, team: Team, size: int) -> None:
    """Raise ApiError or UserError when so many bytes more, with all that is announced and not here, are too much."""
    unfinished = PartedUpload.objects.open()
    if unfinished.filter(created_by=user).count() >= MOST_OPEN:
        raise _too_many(f"You have {MOST_OPEN} uploads open.")
    for whose, rows, most in (
        ("Your", unfinished.filter(created_by=user), LARGEST_OPEN * settings.MAX_UPLOAD_BYTES),
        ("Your team's", unfinished.filter(team=team), LARGEST_OF_TEAM * settings.MAX_UPLOAD_BYTES),
    ):
        announced = rows.aggregate(bytes=Sum("size"))["bytes"] or 0
        if announced + size > most:
            raise _too_many(
                f"{whose} open uploads would have {bytes_text(announced + size)}, at most {bytes_text(most)}."
            )
    if shutil.disk_usage(settings.DATA_DIR).free < size + ROOM_KEPT:
        raise UserError("upload_no_room")


def _too_many(text: str) -> ApiError:
    return ApiError(429, f"{text} Complete or cancel some.", code="too_many_uploads", retry=False)


def add_part(*, upload: PartedUpload, file: "File[bytes]") -> UploadPart:
    """Keep one part. All parts together may not be more than was announced, twice over for parts sent again."""
    if not file.size or file.size > LARGEST_PART:
        bad("data", f"A part must have from 1 to {LARGEST_PART} bytes.")
    here = upload.parts.aggregate(bytes=Sum("size"))["bytes"] or 0
    if here + file.size > 2 * upload.size:
        bad("data", f"This is more than the {upload.size} bytes that were announced.")
    part = UploadPart(id=uuid4(), upload=upload, size=file.size)
    upload.folder.mkdir(parents=True, exist_ok=True)
    with part.path.open("wb") as out:
        for chunk in file.chunks():
            out.write(chunk)
    sync_path(part.path)
    with transaction.atomic():
        if not PartedUpload.objects.open().select_for_update().filter(pk=upload.pk).exists():
            part.path.unlink(missing_ok=True)
            raise not_open(upload)
        part.save(force_insert=True)
    return part


def complete(*, user: User, upload: PartedUpload, part_ids: Sequence[object], md5: str | None) -> AnyFile:
    """Put the parts together in this order; one request does it, whoever else asks meanwhile is refused."""
    joined = JoinedParts(_in_order(upload, part_ids), upload.filename)
    if joined.size != upload.size:
        text = f"These parts have {joined.size} bytes together, and {upload.size} were announced."
        bad("part_ids", text)
    if md5 is not None and _md5_of(joined) != md5.lower():
        bad("md5", "The parts do not have this MD5 together: one is damaged, or the order is wrong.")
    if not PartedUpload.objects.open().filter(pk=upload.pk).update(status=UploadStatus.COMPLETING):
        raise not_open(upload)
    made = None
    seconds = upload.file_seconds
    expires_at = timezone.now() + timedelta(seconds=seconds) if seconds else None
    try:
        made = create_file(user=user, team=upload.team, purpose=upload.purpose, file=joined, expires_at=expires_at)
    finally:
        status = UploadStatus.COMPLETED if made else UploadStatus.PENDING
        upload.status, upload.file_id = status, made.pk if made else None
        upload.save(update_fields=["status", "file_id"])
    shutil.rmtree(upload.folder, ignore_errors=True)
    return made


def _in_order(upload: PartedUpload, part_ids: Sequence[object]) -> list[UploadPart]:
    there = {f"part_{part.pk.hex}": part for part in upload.parts.select_related("upload")}
    unknown = [number for number, one in enumerate(part_ids) if not isinstance(one, str) or one not in there]
    if unknown:
        bad(f"part_ids[{unknown[0]}]", "This is no part of this upload.")
    if not part_ids or len(set(map(str, part_ids))) < len(part_ids):
        bad("part_ids", "`part_ids` must name each part once, in their order.")
    return [there[str(one)] for one in part_ids]


def _md5_of(joined: JoinedParts) -> str:
    digest = hashlib.md5(usedforsecurity=False)  # what the wire has; it finds damage, and proves nothing
    for chunk in joined.chunks():
        digest.update(chunk)
    return digest.hexdigest()


def cancel(*, upload: PartedUpload) -> None:
    if not PartedUpload.objects.open().filter(pk=upload.pk).update(status=UploadStatus.CANCELLED):
        raise not_open(upload)
    shutil.rmtree(upload.folder, ignore_errors=True)


def not_open(upload: PartedUpload) -> ApiError:
    upload.refresh_from_db(fields=["status", "expires_at"])
    return ApiError(400, f"This upload is {status_of(upload)}.", param="upload_id", code="upload_not_pending")


def status_of(upload: PartedUpload) -> str:
    """As the wire has it."""
    if upload.status == UploadStatus.PENDING and upload.expires_at <= timezone.now():
        return UploadStatus.EXPIRED
    return UploadStatus.PENDING if upload.status == UploadStatus.COMPLETING else upload.status
