"""The worker's door: one job a ring, a ring for the next, and an end for what goes wrong in our own code."""

import pytest

from tests.cast import Cast
from tests.make import make_job
from webapp.common.storage import attempt_folder
from webapp.jobs import tasks, worker_process
from webapp.jobs.models import Job, JobStatus, Worker


def test_nothing_waits(cast: Cast) -> None:
    tasks.work()
    assert not Job.objects.exists()


def test_a_fault_of_our_own_ends_the_job_and_names_its_log(
    cast: Cast, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    rung: list[bool] = []
    monkeypatch.setattr(tasks, "ring", lambda: rung.append(True))
    job, _next = make_job(cast.team), make_job(cast.team)
    folder = attempt_folder(job.pk, 1)
    folder.parent.mkdir(parents=True)
    folder.write_text("where the attempt's folder should be")
    tasks.work()
    job.refresh_from_db()
    assert (job.status, job.reason) == (JobStatus.FAILED, "internal")
    assert f"{job.pk}/a1" in job.reason_fix
    assert rung == [True], "the next job waits"
    assert f"job {job.pk}/a1 starts" in caplog.text
    assert f"job {job.pk}/a1 has ended; the job is failed: Something went wrong on our side." in caplog.text


def test_a_worker_that_is_going_takes_nothing(cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    job = make_job(cast.team)
    monkeypatch.setattr(tasks, "is_going", lambda: True)
    tasks.work()
    job.refresh_from_db()
    assert job.status == JobStatus.QUEUED


def test_a_worker_registers_with_its_machine(db: None) -> None:
    worker_process.register("gpu@here")
    worker_process.register("gpu@here")
    worker = Worker.objects.get()
    assert worker.device
    assert worker.memory_bytes > 0
    worker_process.beat("gpu@here")
    worker_process.mark_stopped("gpu@here")
    worker.refresh_from_db()
    assert (worker.beat, worker.stopped) == (1, True)
