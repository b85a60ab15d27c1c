"""Killed trainers and killed workers: the job goes on from its checkpoint and succeeds, and no process is left."""

import dataclasses
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import settings
from django.db import connection

from tests.cast import make_cast
from tests.make import make_base, make_dataset, make_job
from tests.processes import Processes, wait_for
from tests.tiny import make_tiny_base
from trainer.base_facts import inspect_folder
from trainer.spec import TrainSpec
from webapp.jobs.models import Attempt, Job, JobStatus
from webapp.system.processes import Stage
from webapp.system.supervise import STOP_SECONDS

pytestmark = [pytest.mark.chaos, pytest.mark.django_db(transaction=True)]

ROWS = [
    {"messages": [{"role": "user", "content": f"What is {n} + 1?"}, {"role": "assistant", "content": f"{n + 1}."}]}
    for n in range(64)
]
SPEC = TrainSpec()
SPEC = dataclasses.replace(
    SPEC,
    model=dataclasses.replace(SPEC.model, quantization="none"),
    lora=dataclasses.replace(SPEC.lora, r=4),
    data=dataclasses.replace(SPEC.data, max_seq_length=64),
    optim=dataclasses.replace(SPEC.optim, epochs=1000, max_steps=240, batch_size=4),
)


@pytest.fixture
def running() -> Iterator[Processes]:
    """A broker and the scheduler on the test's own database, with a short lease. No other worker may be needed."""
    environment = {
        "DATABASE_URL": f"sqlite:///{connection.settings_dict['NAME']}",
        "HEARTBEAT_SECONDS": "0.5",
        "LEASE_SECONDS": "4",
        "RECONCILE_SECONDS": "0.5",
    }
    with Processes(Path(settings.DATA_DIR), **environment) as found:
        found.broker()
        found.scheduler()
        yield found
    assert found.leftovers() == []


@pytest.fixture
def job(tmp_path: Path) -> Job:
    team = make_cast().team
    folder = make_tiny_base(tmp_path / "tiny")
    version = make_dataset(team, rows=ROWS).versions.get()
    base = make_base(path=folder, facts=inspect_folder(folder))
    return make_job(team, base=base, version=version, spec=SPEC.to_dict())


def trains(job: Job, attempt: int = 1) -> bool:
    """Whether an attempt has left a checkpoint and is still at it."""
    return Attempt.objects.filter(job=job, number=attempt, checkpoint_step__gt=0, ended_at=None).exists()


def wait_for_end(job: Job, running: Processes) -> None:
    def ended() -> bool:
        job.refresh_from_db()
        return job.has_ended

    try:
        wait_for(ended, seconds=150, why="the job ends")
    finally:
        if not job.has_ended or job.status == JobStatus.FAILED:
            print(running.log("gpu"), running.log("default"), job.reason_text, job.status)  # noqa: T201 - for the reader
    assert job.status == JobStatus.SUCCEEDED


def assert_sound(job: Job) -> None:
    """The invariants of a job that went through trouble."""
    numbers = list(job.attempts.values_list("number", flat=True))
    assert numbers == list(range(1, job.attempt_number + 1))
    assert not job.attempts.filter(ended_at=None).exists()
    assert list(job.events.values_list("seq", flat=True)) == list(range(1, job.last_seq + 1))
    assert job.adapter
    assert (job.adapter.folder / "adapter_model.safetensors").is_file()
    assert job.step == job.steps == SPEC.optim.max_steps


def test_a_killed_trainer(job: Job, running: Processes) -> None:
    running.worker("gpu")
    wait_for(lambda: trains(job), seconds=60, why="the trainer leaves a checkpoint")
    (pid,) = running.leftovers(containing="-m trainer train")
    os.kill(pid, signal.SIGKILL)
    wait_for_end(job, running)
    assert_sound(job)
    assert list(job.attempts.values_list("outcome", flat=True)) == ["interrupted", "succeeded"]
    resumed = job.events.filter(kind="progress", attempt_number=2).first()
    assert resumed
    assert resumed.data["step"] > job.attempts.get(number=1).checkpoint_step - 1


def test_a_killed_worker(job: Job, running: Processes) -> None:
    running.worker("gpu", name="first")
    wait_for(lambda: trains(job), seconds=60, why="the trainer leaves a checkpoint")
    running.kill("first")
    wait_for(lambda: not running.leftovers(containing="-m trainer train"), seconds=5, why="the trainer goes with it")
    running.worker("gpu", name="second")
    wait_for_end(job, running)
    assert_sound(job)
    assert list(job.attempts.values_list("outcome", flat=True)) == ["lost", "succeeded"]


def test_a_worker_that_is_asked_to_go_hands_its_job_back(job: Job, running: Processes) -> None:
    running.worker("gpu", name="first")
    wait_for(lambda: trains(job), seconds=60, why="the trainer leaves a checkpoint")
    running.stop("first", seconds=15)
    job.refresh_from_db()
    assert (job.status, job.fruitless_attempts) == (JobStatus.QUEUED, 0)
    assert not running.leftovers(containing="-m trainer train")
    running.worker("gpu", name="second")
    wait_for_end(job, running)
    assert_sound(job)
    assert list(job.attempts.values_list("outcome", flat=True)) == ["preempted", "succeeded"]


def test_a_worker_that_is_asked_to_go_does_not_wait_for_a_trainer_that_hangs(job: Job, running: Processes) -> None:
    """`manage.py up` would kill it: then the job were lost instead of handed back."""
    running.worker("gpu")
    wait_for(lambda: trains(job), seconds=60, why="the trainer leaves a checkpoint")
    (pid,) = running.leftovers(containing="-m trainer train")
    os.kill(pid, signal.SIGSTOP)  # no signal but SIGKILL reaches it now
    assert running.stop("gpu", seconds=STOP_SECONDS[Stage.WORKERS]) == 0
    job.refresh_from_db()
    assert (job.status, job.fruitless_attempts) == (JobStatus.QUEUED, 0)
    assert list(job.attempts.values_list("outcome", flat=True)) == ["preempted"]
    assert not running.leftovers(containing="-m trainer train")


def test_a_broker_that_is_gone_for_a_while(job: Job, running: Processes) -> None:
    running.worker("gpu")
    wait_for(lambda: trains(job), seconds=60, why="the trainer leaves a checkpoint")
    running.kill("broker")
    step = Job.objects.get(pk=job.pk).step
    wait_for(lambda: Job.objects.get(pk=job.pk).step > step + 5, seconds=30, why="training goes on without a broker")
    running.socket.unlink(missing_ok=True)
    running.broker()
    wait_for_end(job, running)
    assert_sound(job)
    assert job.attempt_number == 1
