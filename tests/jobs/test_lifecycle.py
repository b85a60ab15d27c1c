"""Changes of status: fenced by the attempt's number, numbered without gaps, final once final."""

from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from tests.cast import Cast
from tests.jobs.claimed import claimed
from tests.jobs.scripted import progress
from tests.make import ADAPTER_FILES, make_worker
from trainer import events
from webapp.adapters.models import Adapter
from webapp.jobs import lifecycle
from webapp.jobs.lifecycle import LeaseLost
from webapp.jobs.models import ENDED, Attempt, Job, JobStatus


def finished_folder(attempt: Attempt) -> Path:
    folder = attempt.folder / "adapter"
    folder.mkdir(parents=True)
    for file, text in ADAPTER_FILES.items():
        (folder / file).write_text(text)
    return folder


def test_events_are_numbered_and_the_newest_is_on_the_job(cast: Cast) -> None:
    attempt = claimed(cast)
    batch = [events.Phase(name="training"), progress(1), progress(2), events.Checkpoint(step=2, folder="checkpoints/x")]
    assert lifecycle.record_events(attempt, batch) == 5
    lifecycle.record_events(attempt, [events.Log(text="nul \0 here")])
    job = Job.objects.get()
    attempt.refresh_from_db()
    assert [event.seq for event in job.events.all()] == [1, 2, 3, 4, 5, 6]
    assert (job.phase, job.step, job.steps, job.progress["loss"]) == ("training", 2, 10, 2.0)
    assert (attempt.checkpoint_step, attempt.checkpoint_folder) == (2, "checkpoints/x")
    assert job.events.get(seq=6).data["text"] == "nul  here"


def test_an_old_attempt_changes_nothing(cast: Cast) -> None:
    old = claimed(cast)
    folder = finished_folder(old)
    lifecycle.requeue_interrupted(old, "killed")
    new = claimed(cast)
    before = Job.objects.values().get(), new.heartbeat
    late = (
        lambda: lifecycle.heartbeat(old),
        lambda: lifecycle.record_events(old, [progress(9)]),
        lambda: lifecycle.succeed(old, folder, {}),
        lambda: lifecycle.fail(old, "diverged", "NaN"),
        lambda: lifecycle.cancelled(old),
        lambda: lifecycle.requeue_preempted(old),
        lambda: lifecycle.requeue_interrupted(old, "again"),
        lambda: lifecycle.is_cancel_wished(old),
    )
    for write in late:
        with pytest.raises(LeaseLost):
            write()
    new.refresh_from_db()
    assert (Job.objects.values().get(), new.heartbeat) == before
    assert not Adapter.objects.exists()
    assert folder.exists()


def test_heartbeat_counts_up(cast: Cast) -> None:
    attempt = claimed(cast)
    lifecycle.heartbeat(attempt)
    lifecycle.heartbeat(attempt)
    attempt.refresh_from_db()
    assert attempt.heartbeat == 2


def test_success_makes_the_adapter_in_the_same_step(cast: Cast) -> None:
    attempt = claimed(cast)
    folder = finished_folder(attempt)
    adapter = lifecycle.succeed(attempt, folder, {"loss": 1.2})
    job = Job.objects.get()
    attempt.refresh_from_db()
    assert (job.status, job.adapter, attempt.outcome) == (JobStatus.SUCCEEDED, adapter, "succeeded")
    assert adapter.pk == lifecycle.adapter_id_of(job.pk)
    assert (adapter.folder / "adapter_model.safetensors").exists()
    assert not folder.exists()
    assert job.ended_at


def test_success_loses_against_a_wish_to_cancel(cast: Cast) -> None:
    attempt = claimed(cast)
    folder = finished_folder(attempt)
    assert lifecycle.wish_cancel(attempt.job_id, "alice")
    with pytest.raises(LeaseLost):
        lifecycle.succeed(attempt, folder, {})
    assert not Adapter.objects.exists()
    assert folder.exists()


def test_a_wish_after_the_end_is_refused(cast: Cast) -> None:
    attempt = claimed(cast)
    lifecycle.fail(attempt, "out_of_memory", "No memory.", "Take less.")
    assert not lifecycle.wish_cancel(attempt.job_id, "alice")
    assert not lifecycle.cancel_queued(attempt.job_id, "alice")
    job = Job.objects.get()
    assert (job.status, job.reason, job.reason_text, job.reason_fix) == (
        "failed",
        "out_of_memory",
        "No memory.",
        "Take less.",
    )


@pytest.mark.parametrize("status", ENDED)
def test_terminal_never_changes(cast: Cast, status: JobStatus) -> None:
    attempt = claimed(cast)
    Job.objects.update(status=status)
    before = Job.objects.values().get()
    for change in (lifecycle.heartbeat, lifecycle.cancelled, lifecycle.requeue_preempted):
        with pytest.raises(LeaseLost):
            change(attempt)
    assert lifecycle.claim(attempt.job_id, make_worker("late")) is None
    assert Job.objects.values().get() == before


def test_an_unknown_reason_is_internal(cast: Cast) -> None:
    lifecycle.fail(claimed(cast), "no_such_code", "What?")
    assert Job.objects.get().reason == "internal"


def test_back_off_grows_and_three_without_a_checkpoint_are_the_end(cast: Cast) -> None:
    waits = []
    for _ in range(2):
        lifecycle.requeue_interrupted(claimed(cast), "killed")
        job = Job.objects.get()
        assert job.status == JobStatus.QUEUED
        assert job.not_before
        waits.append(round((job.not_before - timezone.now()).total_seconds()))
    assert waits == [5, 15]
    lifecycle.requeue_interrupted(claimed(cast), "killed by a test")
    job = Job.objects.get()
    assert (job.status, job.reason) == (JobStatus.FAILED, "interrupted_too_often")
    assert "killed by a test" in job.reason_text
    assert list(job.attempts.values_list("number", "outcome")) == [(n, "interrupted") for n in (1, 2, 3)]


def test_a_checkpoint_makes_up_for_interruptions(cast: Cast) -> None:
    for step in range(1, 6):
        attempt = claimed(cast)
        lifecycle.record_events(attempt, [events.Checkpoint(step=step, folder=f"checkpoints/step-{step}")])
        lifecycle.requeue_interrupted(attempt, "killed")
    job = Job.objects.get()
    assert (job.status, job.fruitless_attempts, job.attempt_number) == (JobStatus.QUEUED, 0, 5)


def test_a_checkpoint_where_the_attempt_resumed_makes_up_for_nothing(cast: Cast) -> None:
    """A trainer that is told to stop at once saves the step it went on from: without end, were that progress."""
    for _ in range(4):
        attempt = claimed(cast)
        lifecycle.record_events(attempt, [events.Checkpoint(step=7, folder="checkpoints/step-000007")])
        lifecycle.requeue_interrupted(attempt, "asked to stop from outside")
    job = Job.objects.get()
    assert (job.status, job.reason, job.fruitless_attempts) == (JobStatus.FAILED, "interrupted_too_often", 3)


def test_a_shutdown_costs_nothing(cast: Cast) -> None:
    for _ in range(4):
        lifecycle.requeue_preempted(claimed(cast))
    job = Job.objects.get()
    assert (job.status, job.fruitless_attempts, job.not_before) == (JobStatus.QUEUED, 0, None)
    assert set(job.attempts.values_list("outcome", flat=True)) == {"preempted"}


@pytest.mark.parametrize(
    "change", [lifecycle.requeue_preempted, lambda attempt: lifecycle.requeue_interrupted(attempt, "x")]
)
def test_an_interruption_fulfils_the_wish_to_cancel(cast: Cast, change: Any) -> None:
    attempt = claimed(cast)
    lifecycle.wish_cancel(attempt.job_id, "alice")
    change(attempt)
    assert Job.objects.get().status == JobStatus.CANCELLED
