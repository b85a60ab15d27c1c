"""Files of the API: dataset versions under the purpose `fine-tune`, and others as they are."""

import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TypeAlias
from uuid import UUID, uuid4

from django.core.files import File
from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from webapp.accounts.audit import record
from webapp.accounts.models import Team, User
from webapp.api.batch_lifecycle import LIVING
from webapp.api.models import ApiFile, VersionExpiry
from webapp.api.wire import ApiError
from webapp.common.errors import UserError
from webapp.common.storage import pieces_of_file, staged_folder
from webapp.datasets.models import Dataset, DatasetVersion, DatasetVersionQuerySet, Origin
from webapp.datasets.services import delete_dataset, rows_as_jsonl
from webapp.datasets.storing import add_version, check_size, files_removed_on_failure, plain_name, stored
from webapp.datasets.versions import delete_version

TRAINING = "fine-tune"
PURPOSES = (TRAINING, "batch", "user_data", "assistants", "vision", "evals")  # others are for what we write ourselves

AnyFile: TypeAlias = DatasetVersion | ApiFile


def versions_living() -> DatasetVersionQuerySet:
    """Dataset versions as files, expired ones left out."""
    rows = DatasetVersion.objects.filter(Q(expiry=None) | Q(expiry__expires_at__gt=timezone.now()))
    return rows.select_related("expiry")


def find_file(user: User, pk: UUID | None) -> AnyFile | None:
    """The file with this id among those the user may see."""
    if pk is None:
        return None
    version = versions_living().filter(pk=pk, dataset__team__memberships__user=user).select_related("dataset__team")
    return version.first() or ApiFile.objects.visible_to(user).living().filter(pk=pk).select_related("team").first()


def create_file(
    *, user: User, team: Team, purpose: str, file: "File[bytes]", expires_at: datetime | None = None
) -> AnyFile:
    """Store the file; one to train on becomes a dataset version, and its inspection follows by itself."""
    if purpose == TRAINING:
        return _create_version(user, team, file, expires_at)
    check_size(file.size or 0)
    name = plain_name(file.name)
    return _store(team, user, (purpose, name), file.chunks(), expires_at)


def store_output(
    *,
    team: Team,
    user: User | None,
    purpose: str,
    filename: str,
    chunks: Iterable[bytes],
    expires_at: datetime | None = None,
) -> ApiFile:
    """A file that a job (`fine-tune-results`) or a batch (`batch_output`) wrote."""
    return _store(team, user, (purpose, plain_name(filename)), chunks, expires_at)


def _store(
    team: Team, user: User | None, named: tuple[str, str], chunks: Iterable[bytes], expires_at: datetime | None
) -> ApiFile:
    purpose, name = named
    file = ApiFile(
        id=uuid4(), team=team, created_by=user, purpose=purpose, filename=name, size=0, expires_at=expires_at
    )
    with staged_folder(file.folder) as folder, (folder / file.path.name).open("wb") as out:
        for chunk in chunks:
            file.size += len(chunk)
            out.write(chunk)
    with _removed_on_failure(file.folder):
        file.save(force_insert=True)
    return file


def _create_version(user: User, team: Team, file: "File[bytes]", expires_at: datetime | None) -> DatasetVersion:
    """The next version of the dataset that this person uploaded under the same name, or a new dataset's first."""
    version = stored(file)
    name = Path(version.original_name).stem.replace("_", " ").strip()[:120] or "Dataset"
    with files_removed_on_failure([version]), transaction.atomic():
        dataset = Dataset.objects.filter(team=team, name=name, created_by=user).first()
        dataset = dataset or Dataset.objects.create(team=team, name=name, created_by=user)
        add_version(dataset, version, user=user)
        if expires_at:
            VersionExpiry.objects.create(version=version, expires_at=expires_at)
    return version


def content_of(file: AnyFile) -> Iterator[bytes]:
    """Its bytes as they were uploaded; of rows that were made in the browser, JSONL. 404 when they are gone."""
    if isinstance(file, DatasetVersion):
        is_upload = file.origin == Origin.UPLOAD and not file.source.get("version")
        if not (is_upload and file.original_path.is_file()):
            if not file.is_ready:
                raise UserError("dataset_not_ready", status=file.status)
            return rows_as_jsonl(file)
    path = file.original_path if isinstance(file, DatasetVersion) else file.path
    if not path.is_file():
        raise ApiError(404, "The bytes of this file are no longer here.", code="not_found")
    return pieces_of_file(path)


def delete_file(*, user: User, file: AnyFile) -> None:
    """Remove it with its bytes. Refused with 409 while something still refers to it."""
    if isinstance(file, ApiFile):
        _delete_kept(user, file)
    elif file.dataset.versions.exclude(pk=file.pk).exists():
        delete_version(user=user, version=file)
    else:
        delete_dataset(user=user, dataset=file.dataset)


def _delete_kept(user: User, file: ApiFile) -> None:
    folder = file.folder
    with transaction.atomic():
        if reader := file.read_by.filter(status__in=LIVING).first():
            raise ApiError(409, f"The file is in use by {reader}.", param="file_id", code="file_in_use")
        record(actor=user, action="file.delete", team=file.team, target=file.filename)
        file.delete()
        transaction.on_commit(lambda: shutil.rmtree(folder, ignore_errors=True))


@contextmanager
def _removed_on_failure(folder: Path) -> Iterator[None]:
    done = False
    try:
        yield
        done = True
    finally:
        if not done:
            shutil.rmtree(folder, ignore_errors=True)
