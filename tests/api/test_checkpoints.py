"""Checkpoints over the wire: what was measured at each, and models under their names."""

import openai
import pytest
from openai import OpenAI

from tests.adapters.test_checkpoints_of_an_adapter import make_checkpoint
from tests.api.conftest import Connect
from tests.cast import Cast
from tests.make import make_adapter, make_base, make_job, make_job_event
from webapp.adapters.models import Adapter
from webapp.jobs.models import Job, JobStatus


@pytest.fixture
def final(people: Cast) -> Adapter:
    return make_adapter(people.team, make_base(), name="bot", metrics={"published_step": 9, "steps": 9})


@pytest.fixture
def job(people: Cast, final: Adapter) -> Job:
    job = make_job(people.team, base=final.base_model, status=JobStatus.SUCCEEDED, adapter=final)
    for step in range(1, 10):
        make_job_event(job, "progress", step=step, of=9, loss=3.0 - step / 10, accuracy=step / 20)
        if step % 3 == 0:
            make_job_event(job, "evaluated", step=step, loss=2.0 - step / 10, accuracy=step / 10, rows=2)
    for step in (3, 6):
        make_checkpoint(final, step)
    return job


def wire(job: Job) -> str:
    return f"ftjob-{job.pk.hex}"


def test_the_furthest_is_first_with_its_figures(client: OpenAI, job: Job, final: Adapter) -> None:
    found = list(client.fine_tuning.jobs.checkpoints.list(wire(job), limit=2))
    name = f"ft:tiny:red-team:bot:{final.pk.hex[:12]}"
    assert [(one.step_number, one.fine_tuned_model_checkpoint) for one in found] == [
        (9, name),
        (6, f"{name}:ckpt-step-6"),
        (3, f"{name}:ckpt-step-3"),
    ]
    assert found[1].metrics.to_dict() == {
        "step": 6,
        "train_loss": 2.4,
        "train_mean_token_accuracy": 0.3,
        "valid_loss": 1.4,
        "valid_mean_token_accuracy": 0.6,
        "full_valid_loss": 1.4,
        "full_valid_mean_token_accuracy": 0.6,
    }
    assert {one.fine_tuning_job_id for one in found} == {wire(job)}
    assert all(one.id.startswith("ftckpt-") for one in found)
    with pytest.raises(openai.BadRequestError):
        client.fine_tuning.jobs.checkpoints.list(wire(job), after="ftckpt-x")


def test_they_are_models(client: OpenAI, job: Job, final: Adapter) -> None:
    listed = {one.id for one in client.models.list()}
    for one in client.fine_tuning.jobs.checkpoints.list(wire(job)):
        assert one.fine_tuned_model_checkpoint in listed
        assert client.models.retrieve(one.fine_tuned_model_checkpoint).id == one.fine_tuned_model_checkpoint
    name = f"ft:tiny:red-team:bot:{final.pk.hex[:12]}"
    for wrong in (f"{name}:ckpt-step-4", f"{name}:ckpt-step-", f"{name}:ckpt-step-6:x", f"{name}:ckpt-step-{'9' * 30}"):
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve(wrong)


def test_deleting_the_model_removes_them(client: OpenAI, job: Job, final: Adapter) -> None:
    client.models.delete(f"ft:tiny:red-team:bot:{final.pk.hex[:12]}:ckpt-step-3")
    assert [one.step_number for one in client.fine_tuning.jobs.checkpoints.list(wire(job))] == [9, 6]
    client.models.delete(f"ft:x:y:z:{final.pk.hex[:12]}")
    assert not Adapter.objects.exists()
    assert list(client.fine_tuning.jobs.checkpoints.list(wire(job))) == []
    assert client.fine_tuning.jobs.retrieve(wire(job)).fine_tuned_model is None


def test_a_job_that_has_not_succeeded_has_none(client: OpenAI, people: Cast) -> None:
    job = make_job(people.team, base=make_base())
    assert list(client.fine_tuning.jobs.checkpoints.list(wire(job))) == []


def test_strangers_find_nothing(connect: Connect, job: Job) -> None:
    with pytest.raises(openai.NotFoundError):
        connect("charlie").fine_tuning.jobs.checkpoints.list(wire(job))
