"""What people do with datasets: upload, copy, fetch, go on without bad rows, delete."""

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import cast

from django.core.files import File
from django.db import transaction
from django.db.models import ProtectedError

from trainer.formats import Kind, iter_rows
from trainer.formats.columns_beside import ExtraColumns
from trainer.formats.writing import layouts_for
from webapp.accounts.audit import record
from webapp.accounts.models import Team, User
from webapp.common.errors import UserError
from webapp.datasets import versions
from webapp.datasets.lineage import made_of
from webapp.datasets.models import Dataset, DatasetVersion
from webapp.datasets.storing import add_version, files_removed_on_failure, link_inspected, remove, same_original, stored

SAMPLE = Path(__file__).parent / "sample" / "lowrank_assistant.jsonl"
SAMPLE_NAME = "Lowrank assistant (sample)"
ROWS_PER_PIECE = 100  # of a download


def upload_dataset(*, user: User, team: Team, name: str, file: "File[bytes]") -> Dataset:
    """A new dataset with the file as its first version; the inspection follows by itself."""
    version = stored(file)
    with files_removed_on_failure([version]), transaction.atomic():
        dataset = Dataset.objects.create(team=team, name=name, created_by=user)
        add_version(dataset, version, user=user)
    return dataset


def add_sample_dataset(*, user: User, team: Team) -> Dataset:
    """The dataset of the first steps; the one that is there already when it was added before."""
    with transaction.atomic():
        Team.objects.select_for_update().get(pk=team.pk)  # of two clicks at once, the second finds what the first made
        there = Dataset.objects.filter(team=team, name=SAMPLE_NAME).first()
        if there:
            return there
        with SAMPLE.open("rb") as file:
            return upload_dataset(user=user, team=team, name=SAMPLE_NAME, file=File(file, name=SAMPLE.name))


def skip_bad_rows(*, user: User, version: DatasetVersion) -> DatasetVersion:
    """A new version of the same original without the rows that cannot be used."""
    if not version.skippable_rows:
        raise UserError("no_good_rows")
    return versions.once_more(user=user, version=version, skip_bad_rows=True)


def inspect_again(*, user: User, version: DatasetVersion) -> DatasetVersion:
    """The next version, of the same file or changes. Raises UserError unless the inspection was cut short."""
    if not version.was_cut_short:
        raise UserError("nothing_to_inspect", number=version.number)
    return versions.once_more(user=user, version=version, skip_bad_rows=version.skip_bad_rows)


def copy_version(*, user: User, team: Team, version: DatasetVersion, name: str = "") -> Dataset:
    """A new dataset of the team with the same rows. They are the same files, so they need no second inspection."""
    source = {"version": str(version.pk), "name": str(version)}
    kept = ("status", "content_hash", "row_count", "report", "mapping")
    copy = same_original(version, source=source, **{field: getattr(version, field) for field in kept})
    with files_removed_on_failure([copy]), transaction.atomic():
        link_inspected(version, copy.folder)
        dataset = Dataset.objects.create(team=team, name=name or version.dataset.name, created_by=user)
        add_version(dataset, copy, user=user)
    return dataset


def add_from_hub(*, user: User, team: Team, hub_id: str, name: str = "", only: str = "", revision: str = "") -> Dataset:
    """A new dataset of a dataset's files on the hub; its inspection begins with fetching them."""
    source = {"hub": hub_id, "revision": revision, "only": only}
    version = DatasetVersion(original_name=hub_id.rpartition("/")[2], size=0, source=source)
    version.folder.mkdir(parents=True)
    with files_removed_on_failure([version]), transaction.atomic():
        dataset = Dataset.objects.create(team=team, name=name or hub_id[:120], created_by=user)
        add_version(dataset, version, user=user)
    return dataset


def fetch_again(*, user: User, version: DatasetVersion) -> DatasetVersion:
    """The next version of the same dataset, fetched as this one was to be; the one on its way, if there is one.

    Raises UserError for a version that has its file, or that is not of the hub.
    """
    if not version.is_unfetched:
        raise UserError("nothing_to_fetch", number=version.number)
    made = DatasetVersion(original_name=version.original_name, size=0, source=version.source)
    with files_removed_on_failure([made]), transaction.atomic():
        Dataset.objects.select_for_update().get(pk=version.dataset_id)  # of two clicks at once, one waits
        if under_way := version.dataset.versions.pending().filter(source=version.source).first():
            return under_way
        made.folder.mkdir(parents=True)
        add_version(version.dataset, made, user=user)
    return made


def rename_dataset(*, user: User, dataset: Dataset, name: str) -> None:
    with transaction.atomic():
        Dataset.objects.filter(pk=dataset.pk).update(name=name)
        record(actor=user, action="dataset.rename", team=dataset.team, target=f"{dataset.name} to {name}")


def delete_dataset(*, user: User, dataset: Dataset) -> None:
    """Remove the dataset with all its versions and files. Refused while a job or an adapter was made with it."""
    folders = [version.folder for version in dataset.versions.all()]
    try:
        with transaction.atomic():
            Dataset.objects.select_for_update().get(pk=dataset.pk)
            if what := made_of(dataset.versions.all()):
                raise UserError("dataset_in_use", what=what)
            record(actor=user, action="dataset.delete", team=dataset.team, target=dataset.name)
            dataset.delete()
            transaction.on_commit(lambda: remove(folders))
    except ProtectedError as error:  # a job that came meanwhile
        job = next(iter(error.protected_objects))
        raise UserError("dataset_in_use", what=f"the job {job} was made from it") from error


def rows_as_jsonl(version: DatasetVersion) -> Iterator[bytes]:
    """Its canonical rows, one JSON object a line, in pieces: uploaded again they are the same rows."""
    rows = iter_rows(version.rows_path)
    beside = ExtraColumns(layouts_for(cast(Kind, version.kind))[0], set())
    records = (beside.with_extra(row.shape(), row.extra) for row in rows)
    while some := list(islice(records, ROWS_PER_PIECE)):
        yield "".join(f"{json.dumps(record, ensure_ascii=False)}\n" for record in some).encode()
