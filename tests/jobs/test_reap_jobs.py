"""The reaper: a full lease of watching, and one rescue each."""

import pytest

from tests.cast import Cast
from tests.jobs.claimed import claimed
from tests.make import make_job, make_worker
from webapp.jobs import lifecycle, reaper
from webapp.jobs.claiming import claim_next
from webapp.jobs.models import Attempt, Job, JobStatus, Worker
from webapp.jobs.reaper import Reaper


@pytest.fixture
def attempt(cast: Cast) -> Attempt:
    return claimed(cast)


def reconcile(watcher: Reaper, *moments: float) -> Job:
    for now in moments:
        watcher.reconcile(now)
    return Job.objects.get()


def test_a_silent_attempt_is_lost(attempt: Attempt) -> None:
    watcher = Reaper()
    assert reconcile(watcher, 0, 10, 20).status == JobStatus.RUNNING
    job = reconcile(watcher, 30)
    attempt.refresh_from_db()
    assert (job.status, attempt.outcome, job.fruitless_attempts) == (JobStatus.QUEUED, "lost", 1)
    assert job.not_before
    with pytest.raises(lifecycle.LeaseLost):
        lifecycle.heartbeat(attempt)


def test_a_beating_attempt_is_left_alone(attempt: Attempt) -> None:
    watcher = Reaper()
    for now in range(0, 300, 10):
        lifecycle.heartbeat(attempt)
        assert reconcile(watcher, float(now)).status == JobStatus.RUNNING


def test_two_reapers_rescue_once(attempt: Attempt) -> None:
    watchers = Reaper(), Reaper()
    for now in (0.0, 15.0, 30.0, 45.0):
        for watcher in watchers:
            watcher.reconcile(now)
    job = Job.objects.get()
    assert (job.fruitless_attempts, job.events.filter(kind="status").count()) == (1, 2)


def test_silent_workers_are_marked_and_stand_up_again(cast: Cast) -> None:
    from webapp.jobs.worker_process import beat

    make_worker()
    watcher = Reaper()
    for now in (0.0, 15.0, 30.0):
        watcher.reconcile(now)
    assert Worker.objects.get().stopped
    beat("worker-1")
    assert not Worker.objects.get().stopped


def test_an_attempt_whose_worker_is_gone_keeps_nobody_from_ringing(cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its row has no worker; in SQL nothing is outside of a list with a NULL in it."""
    rung: list[float] = []
    monkeypatch.setattr(reaper, "ring", lambda: rung.append(1))
    make_job(cast.team)
    claim_next(make_worker("deleted"))
    Worker.objects.all().delete()
    make_job(cast.team)
    make_worker("idle")
    watcher = Reaper()
    watcher.reconcile(0)
    watcher.reconcile(1)
    assert len(rung) == 2


def test_the_bell_rings_for_waiting_jobs_while_somebody_is_free(cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    rung: list[float] = []
    monkeypatch.setattr(reaper, "ring", lambda: rung.append(1))
    watcher = Reaper()
    watcher.reconcile(0)
    assert not rung, "nothing waits"
    make_job(cast.team)
    make_job(cast.team)
    make_worker("idle")
    watcher.reconcile(1)
    watcher.reconcile(2)
    assert len(rung) == 2
    claim_next(Worker.objects.get())
    watcher.reconcile(3)
    assert len(rung) == 2, "everybody is busy; whoever ends a job rings"
    watcher.reconcile(33)
    assert len(rung) == 3, "once in a while anyway"
