"""What people do with datasets: upload, add a version, go on without bad rows, delete."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from uuid import uuid4

from django.conf import settings
from django.core.files import File
from django.db import transaction
from django.db.models import Max, ProtectedError

from trainer.formats import iter_rows
from webapp.accounts.audit import record
from webapp.accounts.models import Team, User
from webapp.common.errors import UserError
from webapp.common.storage import dataset_folder, staged_folder
from webapp.common.words import bytes_text
from webapp.datasets.models import Dataset, DatasetVersion
from webapp.datasets.tasks import ring

SAMPLE = Path(__file__).parent / "sample" / "lowrank_assistant.jsonl"
SAMPLE_NAME = "Lowrank assistant (sample)"
ROWS_PER_PIECE = 100  # of a download


def upload_dataset(*, user: User, team: Team, name: str, file: "File[bytes]") -> Dataset:
    """A new dataset with the file as its first version; the inspection follows by itself."""
    version = _stored(file)
    with _files_removed_on_failure(version), transaction.atomic():
        dataset = Dataset.objects.create(team=team, name=name, created_by=user)
        _add(dataset, version, user=user)
    return dataset


def upload_version(*, user: User, dataset: Dataset, file: "File[bytes]") -> DatasetVersion:
    """The file as the dataset's next version."""
    version = _stored(file)
    with _files_removed_on_failure(version), transaction.atomic():
        _add(dataset, version, user=user)
    return version


def add_sample_dataset(*, user: User, team: Team) -> Dataset:
    """The dataset of the first steps; the one that is there already when it was added before."""
    there = Dataset.objects.filter(team=team, name=SAMPLE_NAME).first()
    if there:
        return there
    with SAMPLE.open("rb") as file:
        return upload_dataset(user=user, team=team, name=SAMPLE_NAME, file=File(file, name=SAMPLE.name))


def skip_bad_rows(*, user: User, version: DatasetVersion) -> DatasetVersion:
    """A new version of the same original without the rows that cannot be used."""
    if not version.skippable_rows:
        raise UserError("no_good_rows")
    copy = DatasetVersion(
        id=uuid4(),
        original_name=version.original_name,
        original_sha256=version.original_sha256,
        size=version.size,
        skip_bad_rows=True,
    )
    with staged_folder(copy.folder) as folder:
        _link(version.original_path, folder / "original")
    with _files_removed_on_failure(copy), transaction.atomic():
        _add(version.dataset, copy, user=user)
    return copy


def job_made_from(dataset: Dataset) -> str:
    """The name of a job that keeps the dataset from being deleted; empty when none does."""
    return dataset.versions.exclude(jobs=None).values_list("jobs__name", flat=True).first() or ""


def delete_dataset(*, user: User, dataset: Dataset) -> None:
    """Remove the dataset with all its versions and files. Refused while a job refers to it."""
    folders = [version.folder for version in dataset.versions.all()]
    try:
        with transaction.atomic():
            record(actor=user, action="dataset.delete", team=dataset.team, target=dataset.name)
            dataset.delete()
            transaction.on_commit(lambda: _remove(folders))
    except ProtectedError as error:
        job = next(iter(error.protected_objects))
        raise UserError("dataset_in_use", job=str(job)) from error


def _stored(file: "File[bytes]") -> DatasetVersion:
    """Write the upload piece by piece to the folder of a new version, which is not saved yet."""
    if (file.size or 0) > settings.MAX_UPLOAD_BYTES:
        raise _too_large()
    version_id, digest, size = uuid4(), hashlib.sha256(), 0
    with staged_folder(dataset_folder(version_id)) as folder, (folder / "original").open("wb") as out:
        for chunk in file.chunks():
            size += len(chunk)
            if size > settings.MAX_UPLOAD_BYTES:
                raise _too_large()
            digest.update(chunk)
            out.write(chunk)
        if not size:
            raise UserError("upload_empty")
    sha256 = digest.hexdigest()
    return DatasetVersion(id=version_id, original_name=_file_name(file), original_sha256=sha256, size=size)


def _too_large() -> UserError:
    return UserError("upload_too_large", limit=bytes_text(settings.MAX_UPLOAD_BYTES))


def _add(dataset: Dataset, version: DatasetVersion, *, user: User) -> None:
    """Save the version under the dataset's next number and ring for its inspection, inside a transaction."""
    Dataset.objects.select_for_update().get(pk=dataset.pk)  # of two uploads at once, one waits for the other's number
    newest = dataset.versions.aggregate(newest=Max("number"))["newest"]
    version.dataset, version.number, version.created_by = dataset, (newest or 0) + 1, user
    version.save(force_insert=True)
    transaction.on_commit(lambda: ring(version.pk))


def rows_as_jsonl(version: DatasetVersion) -> Iterator[bytes]:
    """Its canonical rows, one JSON object a line, in pieces: uploaded again they are the same rows."""
    rows = iter_rows(version.rows_path)
    while some := list(islice(rows, ROWS_PER_PIECE)):
        yield "".join(f"{json.dumps(row.shape(), ensure_ascii=False)}\n" for row in some).encode()


@contextmanager
def _files_removed_on_failure(version: DatasetVersion) -> Iterator[None]:
    with ExitStack() as undo:
        undo.callback(_remove, [version.folder])
        yield
        undo.pop_all()


def _file_name(file: "File[bytes]") -> str:
    """The name people know the file by; never used as a path."""
    name = Path(file.name or "").name
    return "".join(character for character in name if character.isprintable())[-255:] or "upload"


def _link(source: Path, target: Path) -> None:
    """The same bytes under a second name: no version's original is ever written to."""
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)


def _remove(folders: list[Path]) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
