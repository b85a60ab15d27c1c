"""Cancelling: at once in the queue, by the worker when running, never after the end."""

import pytest
from django.urls import reverse

from tests.cast import Cast
from tests.make import make_job, make_worker
from webapp.accounts.models import AuditEntry
from webapp.common.errors import UserError
from webapp.jobs import lifecycle
from webapp.jobs.claiming import claim_next
from webapp.jobs.models import ENDED, Job, JobStatus
from webapp.jobs.services import request_cancel


def cancel(cast: Cast, job: Job, who: str = "bob") -> int:
    status: int = cast.client(who).post(reverse("job_cancel", args=[job.pk])).status_code
    job.refresh_from_db()
    return status


def test_a_queued_job_ends_at_once(cast: Cast) -> None:
    job = make_job(cast.team)
    assert cancel(cast, job) == 302
    assert (job.status, job.cancel_requested) == (JobStatus.CANCELLED, True)
    assert job.ended_at
    assert job.events.get().data == {"from": "queued", "to": "cancelled", "actor": "bob@example.com"}
    assert AuditEntry.objects.get(action="job.cancel").target == job.name
    assert claim_next(make_worker()) is None


def test_a_running_job_gets_the_wish(cast: Cast) -> None:
    job = make_job(cast.team)
    attempt = claim_next(make_worker())
    assert attempt
    assert cancel(cast, job) == 302
    assert (job.status, job.cancel_requested, job.shown_status) == (JobStatus.RUNNING, True, "cancelling")
    assert lifecycle.is_cancel_wished(attempt)
    lifecycle.cancelled(attempt)
    job.refresh_from_db()
    assert job.status == JobStatus.CANCELLED


def test_how_it_ended_is_told(cast: Cast) -> None:
    told = []
    for status in ENDED:
        with pytest.raises(UserError) as caught:
            request_cancel(user=cast.bob, job=make_job(cast.team, status=status))
        told.append(caught.value.text.removeprefix("This job has ended already: "))
    assert told == ["it succeeded.", "it failed.", "it was cancelled."]


@pytest.mark.parametrize("status", ENDED)
def test_what_has_ended_stays_as_it_is(cast: Cast, status: JobStatus) -> None:
    job = make_job(cast.team, status=status)
    assert cancel(cast, job) == 409
    assert job.status == status
    assert not AuditEntry.objects.filter(action="job.cancel").exists()


def test_viewers_and_strangers_do_not_cancel(cast: Cast) -> None:
    job = make_job(cast.team)
    assert [cancel(cast, job, who) for who in ("vera", "charlie")] == [403, 404]
    assert job.status == JobStatus.QUEUED
