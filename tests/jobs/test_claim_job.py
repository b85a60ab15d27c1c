"""Claiming: fair, once, and only what is to be had."""

import re
from datetime import timedelta
from threading import Barrier, Thread

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from tests.cast import Cast, make_cast
from tests.make import make_job, make_worker
from webapp.jobs import lifecycle
from webapp.jobs.claiming import claim_next, place_in_line
from webapp.jobs.models import Attempt, Job, JobStatus, Worker


def test_it_works(cast: Cast) -> None:
    job, worker = make_job(cast.team), make_worker()
    attempt = claim_next(worker)
    assert attempt
    job.refresh_from_db()
    assert (attempt.job_id, attempt.number, attempt.worker) == (job.pk, 1, worker)
    assert (job.status, job.attempt_number, job.last_seq) == (JobStatus.RUNNING, 1, 1)
    assert job.started_at
    event = job.events.get()
    assert (event.seq, event.kind, event.data) == (
        1,
        "status",
        {"from": "queued", "to": "running", "actor": "worker-1"},
    )


def test_nothing_to_claim(cast: Cast) -> None:
    later = timezone.now() + timedelta(minutes=1)
    make_job(cast.team, not_before=later)
    make_job(cast.team, cancel_requested=True)
    make_job(cast.team, status=JobStatus.FAILED)
    assert claim_next(make_worker()) is None
    assert not Attempt.objects.exists()


def test_a_job_whose_wait_is_over_is_claimed(cast: Cast) -> None:
    make_job(cast.team, not_before=timezone.now() - timedelta(seconds=1))
    assert claim_next(make_worker())


def test_the_team_with_the_fewest_running_jobs_comes_first(cast: Cast) -> None:
    charlies = cast.charlie.personal_team
    make_job(cast.team, status=JobStatus.RUNNING)
    first, second, fairer = make_job(cast.team), make_job(cast.team), make_job(charlies)
    assert [place_in_line(job) for job in (fairer, first, second)] == [1, 2, 3]
    worker = make_worker()
    claimed = [claim_next(worker) for _ in range(3)]
    assert [attempt.job_id for attempt in claimed if attempt] == [fairer.pk, first.pk, second.pk]


@pytest.mark.django_db(transaction=True)
def test_many_workers_one_claim_each() -> None:
    team = make_cast().team
    jobs = {make_job(team, name=str(number)).pk for number in range(4)}
    workers = [make_worker(f"worker-{number}") for number in range(8)]
    got: list[Attempt | None] = []
    start = Barrier(len(workers))

    def claim(worker: Worker) -> None:
        start.wait()
        got.append(claim_next(worker))
        connection.close()

    threads = [Thread(target=claim, args=(worker,)) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    claimed = [attempt.job_id for attempt in got if attempt]
    assert len(got) == 8
    assert sorted(claimed) == sorted(jobs)
    assert all(job.attempt_number == 1 and job.last_seq == 1 for job in Job.objects.all())


def test_the_claim_itself_asks_for_every_condition(cast: Cast) -> None:
    """In the UPDATE's own WHERE, where PostgreSQL looks again after waiting for another claim of the same row."""
    job, worker = make_job(cast.team), make_worker()
    with CaptureQueriesContext(connection) as seen:
        assert lifecycle.claim(job.pk, worker)
    update = next(one["sql"] for one in seen if one["sql"].startswith("UPDATE") and "jobs_job" in one["sql"])
    where = update.partition(" WHERE ")[2]
    outer = re.sub(r"\(SELECT .*?\)", "", where)
    assert "JOIN" not in where
    for column in ("status", "cancel_requested", "paused", "not_before", "dataset_version_id"):
        assert f'"jobs_job"."{column}"' in outer, column
