"""Events of a job over the wire: newest first, page by page, with figures where something was measured."""

from typing import Any

import openai
import pytest
from openai import OpenAI

from tests.cast import Cast
from tests.make import make_base, make_job, make_job_event
from webapp.jobs.models import Job


@pytest.fixture
def job(people: Cast) -> Job:
    job = make_job(people.team, base=make_base())
    make_job_event(job, "status", **{"from": "queued", "to": "running", "actor": "worker-1"})
    make_job_event(job, "phase", name="loading")
    make_job_event(job, "evaluated", step=0, loss=3.25, accuracy=0.1, rows=4, perplexity=25.8)
    make_job_event(job, "progress", step=1, of=8, loss=2.5, learning_rate=1e-4, trained_tokens=90, accuracy=0.25)
    make_job_event(job, "log", text="A library warns", level="warning")
    make_job_event(job, "checkpoint", step=1, folder="checkpoints/step-000001")
    make_job_event(job, "memory", step=1, peak_bytes=1_240_000_000, foretold_bytes=1_300_000_000, device="cpu")
    make_job_event(job, "sample", step=1, prompt="Who?", completion="Me.")
    make_job_event(job, "wish", wish="pause", actor="bob@example.com")
    make_job_event(job, "status", **{"from": "running", "to": "queued", "reason": "paused"})
    failed = {"from": "running", "to": "failed", "reason": "diverged", "text": "It diverged.", "fix": "Go slower."}
    make_job_event(job, "status", **failed)
    return job


def wire(job: Job) -> str:
    return f"ftjob-{job.pk.hex}"


def test_they_read_as_sentences(client: OpenAI, job: Job) -> None:
    told = [(one.level, one.type, one.message) for one in client.fine_tuning.jobs.list_events(wire(job))]
    assert told == [
        ("error", "message", "The job failed: It diverged. Go slower."),
        ("info", "message", "The job is queued again. It is paused."),
        ("info", "message", "The job is to pause."),
        ("info", "message", "Step 1: Who? → Me."),
        ("info", "message", "At most 1.2 GB of memory were held."),
        ("info", "message", "A checkpoint to go on from was kept at step 1."),
        ("warn", "message", "A library warns"),
        ("info", "metrics", "Step 1/8: training loss=2.5000"),
        ("info", "metrics", "Step 0: validation loss=3.2500"),
        ("info", "message", "Loading the base model."),
        ("info", "message", "The job is running."),
        ("info", "message", "The job was created."),
    ]


def test_metrics_have_figures(client: OpenAI, job: Job) -> None:
    found: dict[str, Any] = {one.message: one.data for one in client.fine_tuning.jobs.list_events(wire(job))}
    assert found["Step 1/8: training loss=2.5000"] == {
        "step": 1,
        "total_steps": 8,
        "train_loss": 2.5,
        "train_mean_token_accuracy": 0.25,
        "learning_rate": 1e-4,
        "trained_tokens": 90,
    }
    measured = found["Step 0: validation loss=3.2500"]
    assert (measured["valid_loss"], measured["full_valid_mean_token_accuracy"]) == (3.25, 0.1)


@pytest.mark.parametrize("limit", [1, 3, 11, 12, 13])
def test_pages_hold_each_once(client: OpenAI, job: Job, limit: int) -> None:
    ids = [one.id for one in client.fine_tuning.jobs.list_events(wire(job), limit=limit)]
    assert len(ids) == len(set(ids)) == 12
    assert all(one.startswith("ftevent-") for one in ids)
    oldest_first = client.get(f"/fine_tuning/jobs/{wire(job)}/events?order=asc&limit={limit}", cast_to=object)
    assert [one["id"] for one in oldest_first["data"]] == ids[::-1][:limit]  # type: ignore[index]
    after = client.get(f"/fine_tuning/jobs/{wire(job)}/events?order=asc&limit=100&after={ids[-1]}", cast_to=object)
    assert [one["id"] for one in after["data"]] == ids[::-1][1:]  # type: ignore[index]


@pytest.mark.parametrize(
    "after", ["x", "ftevent-1", "ftevent-" + "0" * 32 + "-1", "ftevent-{job}-x", "ftevent-{job}-", "ftevent-{job}-²"]
)
def test_a_wrong_place_is_refused(client: OpenAI, job: Job, after: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.fine_tuning.jobs.list_events(wire(job), after=after.format(job=job.pk.hex))
    assert caught.value.param == "after"


def test_a_new_job_has_its_creation(client: OpenAI, people: Cast) -> None:
    job = make_job(people.team, base=make_base())
    assert [one.message for one in client.fine_tuning.jobs.list_events(wire(job))] == ["The job was created."]
