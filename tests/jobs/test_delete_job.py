"""Deleting a job: only when it has ended, with all that its attempts left, and never its adapter."""

import pytest
from django.urls import reverse

from tests.cast import Cast
from tests.make import make_adapter, make_attempt, make_job, make_job_event
from webapp.accounts.models import AuditEntry
from webapp.adapters.models import Adapter
from webapp.datasets.models import Dataset
from webapp.jobs.models import ENDED, Attempt, Job, JobEvent, JobStatus


@pytest.mark.parametrize("status", ENDED)
def test_an_ended_job_goes_with_its_files(cast: Cast, status: JobStatus, django_capture_on_commit_callbacks) -> None:  # type: ignore[no-untyped-def]
    job = make_job(cast.team, status=status)
    attempt = make_attempt(job)
    make_job_event(job, "log", text="x", level="info")
    with django_capture_on_commit_callbacks(execute=True):
        answer = cast.client("bob").post(reverse("job_delete", args=[job.pk]))
    assert answer["Location"] == reverse("jobs")
    assert not Job.objects.exists() and not Attempt.objects.exists() and not JobEvent.objects.exists()
    assert not attempt.folder.parent.exists()
    assert AuditEntry.objects.get(action="job.delete").target == job.name


def test_its_adapter_stays_whole_and_keeps_their_dataset(cast: Cast) -> None:
    """What an adapter was trained on can be looked up as long as the adapter is there."""
    job = make_job(cast.team, status=JobStatus.SUCCEEDED)
    adapter = make_adapter(cast.team, job.base_model, dataset_version=job.dataset_version)
    Job.objects.update(adapter=adapter)
    client = cast.client("bob")
    refused = client.post(reverse("dataset_delete", args=[job.dataset_version.dataset_id]))
    assert b"Delete that first, on its page" in refused.content and job.name.encode() in refused.content
    client.post(reverse("job_delete", args=[job.pk]))
    refused = client.post(reverse("dataset_delete", args=[job.dataset_version.dataset_id]))
    assert adapter.name.encode() in refused.content and Dataset.objects.exists()
    assert Adapter.objects.get().folder.is_dir()
    assert client.get(reverse("adapter", args=[adapter.pk])).status_code == 200
    assert client.get(reverse("adapters")).status_code == 200
    client.post(reverse("adapter_delete", args=[adapter.pk]))
    client.post(reverse("dataset_delete", args=[job.dataset_version.dataset_id]))
    assert not Dataset.objects.exists()


@pytest.mark.parametrize("status", [JobStatus.QUEUED, JobStatus.RUNNING])
def test_a_job_that_has_not_ended_stays(cast: Cast, status: JobStatus) -> None:
    job = make_job(cast.team, status=status)
    attempt = make_attempt(job)
    answer = cast.client("bob").post(reverse("job_delete", args=[job.pk]))
    assert answer.status_code == 409
    assert b"has not ended yet" in answer.content
    assert attempt.folder.is_dir()


def test_the_page_offers_it_to_members_once_it_has_ended(cast: Cast) -> None:
    job = make_job(cast.team)
    address = reverse("job_delete", args=[job.pk])

    def offered(who: str) -> bool:
        return address in cast.client(who).get(reverse("job", args=[job.pk])).content.decode()

    assert not offered("bob")
    Job.objects.update(status=JobStatus.FAILED)
    assert offered("bob")
    assert not offered("vera")
