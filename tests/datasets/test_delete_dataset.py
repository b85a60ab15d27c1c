"""Deleting: row, versions and files go together; what a job refers to stays."""

import pytest
from django.urls import reverse

from tests.cast import Cast
from tests.make import make_adapter, make_base, make_dataset, make_job, make_version
from webapp.accounts.models import AuditEntry
from webapp.adapters.models import Adapter
from webapp.common.errors import UserError
from webapp.datasets import services, versions
from webapp.datasets.models import Dataset


def test_dataset_goes_with_its_files(cast: Cast, django_capture_on_commit_callbacks: object) -> None:
    dataset = make_dataset(cast.team, name="old")
    folders = [dataset.versions.get().folder, make_version(dataset).folder]
    with django_capture_on_commit_callbacks(execute=True):  # type: ignore[operator]
        answer = cast.client("bob").post(reverse("dataset_delete", args=[dataset.pk]))
    assert answer["Location"] == reverse("datasets")
    assert not Dataset.objects.exists()
    assert not any(folder.exists() for folder in folders)
    entry = AuditEntry.objects.get(action="dataset.delete")
    assert (entry.actor, entry.target) == (cast.bob, "old")


def test_dataset_of_a_job_stays(cast: Cast) -> None:
    dataset = make_dataset(cast.team)
    version = dataset.versions.get()
    make_job(cast.team, version=version, name="my job")
    with pytest.raises(UserError) as refused:
        services.delete_dataset(user=cast.bob, dataset=dataset)
    assert (refused.value.code, refused.value.status) == ("dataset_in_use", 409)
    assert "my job" in refused.value.text
    assert cast.client("bob").post(reverse("dataset_delete", args=[dataset.pk])).status_code == 409
    assert version.rows_path.exists()
    assert not AuditEntry.objects.filter(action="dataset.delete").exists()


def test_the_page_says_beforehand_that_a_job_keeps_it(cast: Cast) -> None:
    dataset = make_dataset(cast.team)
    address = reverse("dataset", args=[dataset.pk])
    assert 'commandfor="delete-dialog"' in cast.client("bob").get(address).content.decode()
    make_job(cast.team, version=dataset.versions.get(), name="my job")
    page = cast.client("bob").get(address).content.decode()
    assert 'commandfor="delete-dialog"' not in page
    assert "The dataset stays: the job my job was made from it." in page


def test_what_adapters_were_trained_on_stays_when_the_job_has_gone(cast: Cast) -> None:
    dataset = make_dataset(cast.team)
    version, base = dataset.versions.get(), make_base()
    for name in ("one", "two", "three", "four"):
        make_adapter(cast.team, base, name=name, dataset_version=version)
    refused = cast.client("bob").post(reverse("dataset_delete", args=[dataset.pk]))
    assert refused.status_code == 409
    assert "and 1 more were trained on it." in refused.content.decode()
    page = cast.client("bob").get(reverse("dataset", args=[dataset.pk])).content.decode()
    assert "The dataset stays: the adapters" in page and 'commandfor="delete-dialog"' not in page
    make_version(dataset)
    with pytest.raises(UserError, match="Version 1 stays: the adapters"):
        versions.delete_version(user=cast.bob, version=version)
    Adapter.objects.all().delete()
    services.delete_dataset(user=cast.bob, dataset=dataset)
    assert not Dataset.objects.exists()


@pytest.mark.parametrize(("who", "status"), [("vera", 403), ("charlie", 404), ("anonymous", 302)])
def test_only_members_may_delete(cast: Cast, who: str, status: int) -> None:
    dataset = make_dataset(cast.team)
    assert cast.client(who).post(reverse("dataset_delete", args=[dataset.pk])).status_code == status
    assert cast.client("bob").get(reverse("dataset_delete", args=[dataset.pk])).status_code == 405
    assert Dataset.objects.exists()
