"""An older version again, and the end of a single one: nothing is copied, nothing in use can vanish."""

import pytest
from django.urls import reverse

from tests.cast import Cast
from tests.datasets.inspected import inspect, uploaded
from tests.make import ROWS, make_adapter, make_base, make_dataset, make_job, make_version
from webapp.accounts.models import AuditEntry
from webapp.common.errors import UserError
from webapp.datasets import services, versions
from webapp.datasets.models import DatasetVersion, Origin, VersionStatus


@pytest.fixture
def first(cast: Cast) -> DatasetVersion:
    """Of two."""
    version = make_dataset(cast.team, created_by=cast.alice).versions.get()
    make_version(version.dataset, rows=ROWS[:1])
    return version


def test_an_older_version_becomes_the_newest(cast: Cast, first: DatasetVersion) -> None:
    cast.client("bob").post(reverse("version_restore", args=[first.pk]))
    made = first.dataset.newest
    assert made is not None
    assert (made.number, made.parent, made.origin, made.status) == (3, first, Origin.RESTORE, "ready")
    assert (made.content_hash, made.row_count, made.report) == (first.content_hash, first.row_count, first.report)
    for name in ("original", "rows.parquet", "report.json"):
        assert (made.folder / name).samefile(first.folder / name), "the same bytes under another name"
    assert made.note == "Version 1 again"


def test_bad_lines_and_the_first_rows_of_the_file_stay_with_it(cast: Cast) -> None:
    rejected = uploaded(cast, b'{"prompt": "a", "completion": "b"}\nnot a row\n')
    version = inspect(services.skip_bad_rows(user=cast.bob, version=rejected))
    restored = versions.restore(user=cast.bob, version=version)
    copied = services.copy_version(user=cast.bob, team=cast.team, version=version).versions.get()
    for one in (restored, copied):
        client = cast.client("bob")
        assert client.get(reverse("version_bad_lines", args=[one.pk])).status_code == 200
        asked = {"kind": "text", "of": "text", "text": "completion"}
        assert 'id="row-1"' in client.get(reverse("dataset_mapping", args=[one.pk]), asked).content.decode()


def test_what_was_restored_outlives_what_it_was_made_from(cast: Cast, first: DatasetVersion) -> None:
    made = versions.restore(user=cast.bob, version=first)
    versions.delete_version(user=cast.bob, version=first)
    made.refresh_from_db()
    assert made.parent is None
    assert made.rows_path.is_file()


def test_only_what_is_ready_is_restored(cast: Cast, first: DatasetVersion) -> None:
    broken = make_version(first.dataset, status=VersionStatus.REJECTED)
    assert cast.client("bob").post(reverse("version_restore", args=[broken.pk])).status_code == 409


def test_a_single_version_is_deleted_with_its_files(
    cast: Cast, first: DatasetVersion, django_capture_on_commit_callbacks: object
) -> None:
    folder = first.folder
    with django_capture_on_commit_callbacks(execute=True):  # type: ignore[operator]  # a fixture without types
        cast.client("bob").post(reverse("version_delete", args=[first.pk]))
    assert not folder.exists()
    assert [version.number for version in first.dataset.versions.all()] == [2]
    assert AuditEntry.objects.filter(action="dataset.version.delete", actor=cast.bob).exists()


def refused(cast: Cast, version: DatasetVersion) -> str:
    with pytest.raises(UserError) as caught:
        versions.delete_version(user=cast.bob, version=version)
    assert DatasetVersion.objects.filter(pk=version.pk).exists()
    assert version.rows_path.is_file()
    return caught.value.text


def test_a_version_in_use_stays(cast: Cast, first: DatasetVersion) -> None:
    second = first.dataset.newest
    assert second is not None
    job = make_job(cast.team, version=first, name="my job")
    assert "the job my job" in refused(cast, first)
    job.dataset_version, job.validation_version = second, first
    job.save()
    assert "the job my job" in refused(cast, first), "it is measured on"
    job.delete()
    make_adapter(cast.team, make_base(name="another"), name="my-adapter", dataset_version=first)
    assert "the adapter my-adapter" in refused(cast, first)


def test_the_parent_of_a_version_in_the_making_stays(cast: Cast, first: DatasetVersion) -> None:
    versions.revise(user=cast.bob, version=first, changes={"add": ROWS[:1]})
    assert "version 3 is being made of it" in refused(cast, first)


def test_the_only_version_stays(cast: Cast) -> None:
    assert "the only one" in refused(cast, make_dataset(cast.team).versions.get())


def test_a_version_is_not_made_of_one_that_is_gone(cast: Cast, first: DatasetVersion) -> None:
    known = DatasetVersion.objects.get(pk=first.pk)
    versions.delete_version(user=cast.bob, version=first)
    before = set(known.folder.parent.iterdir())
    with pytest.raises(UserError):
        versions.revise(user=cast.alice, version=known, changes={"add": ROWS[:1]})
    assert set(known.folder.parent.iterdir()) == before
