"""The whole way with the official client and a real trainer: files, wait, train, pause, resume, events, checkpoints."""

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from django.db import connections
from openai import OpenAI

from tests.api.answering import Answering
from tests.api.conftest import Connect
from tests.cast import Cast
from tests.make import make_base
from tests.processes import wait_for
from tests.tiny import make_tiny_base
from trainer.adapter_format import read_config
from webapp.adapters.models import Adapter
from webapp.api.names import FILE, uuid_of
from webapp.datasets.models import DatasetVersion
from webapp.datasets.tasks import inspect
from webapp.jobs.models import Job
from webapp.jobs.tasks import work


def lines(count: int) -> bytes:
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"What is {n}?"},
                {"role": "assistant", "content": f"It is {n * 3}."},
            ]
        }
        for n in range(count)
    ]
    return "\n".join(map(json.dumps, rows)).encode()


class Worker(threading.Thread):
    """Carries one job through."""

    def run(self) -> None:
        try:
            work()
        finally:
            connections.close_all()


def upload(client: OpenAI, name: str, count: int) -> str:
    return client.files.create(file=(name, lines(count)), purpose="fine-tune").id


def check(file: str) -> None:
    inspect(str(uuid_of(file, FILE)))


@pytest.mark.e2e
def test_from_files_to_an_answer(
    client: OpenAI, connect: Connect, answering: Answering, people: Cast, tmp_path: Path
) -> None:
    make_base(name="Tiny", path=make_tiny_base(tmp_path / "base"))
    job = submit(client)
    stopped_at = train_until_paused(client, job)
    train_to_the_end(client, job)
    look_at_events(client, job, stopped_at)
    look_at_checkpoints(client, job)
    chat_with_what_it_made(client, connect("bob", base_url=f"{answering.address}/v1", timeout=60.0), job)
    final = Adapter.objects.get(of=None)
    assert final.metrics["evaluation_rows"] == 5, "the second file's rows, all of them"
    assert DatasetVersion.objects.count() == 2
    assert all(read_config(one.folder / "adapter_config.json").r == 16 for one in Adapter.objects.all())


def submit(client: OpenAI) -> str:
    """A job that waits for its two files to be checked, and is queued once they are."""
    training, validation = upload(client, "train.jsonl", 24), upload(client, "valid.jsonl", 5)
    own: Any = {
        "model": {"quantization": "none", "dtype": "float32"},
        "data": {"max_seq_length": 64},
        "evaluation": {"every_steps": 240, "forgetting": False},
    }
    # Seven hundred steps: it must not be over before the pause has reached it.
    hyper: Any = {"n_epochs": 120, "batch_size": 4, "learning_rate_multiplier": 5}
    made = client.fine_tuning.jobs.create(
        model="tiny",
        training_file=training,
        validation_file=validation,
        suffix="threes",
        method={"type": "supervised", "supervised": {"hyperparameters": hyper}},
        extra_body={"spec": own},
    )
    assert made.status == "validating_files"
    check(training)
    check(validation)
    assert client.files.wait_for_processing(training, poll_interval=0.1).status == "processed"
    assert client.fine_tuning.jobs.retrieve(made.id).status == "queued"
    return made.id


def train_until_paused(client: OpenAI, job: str) -> int:
    """The step of the checkpoint at which it was held; nobody takes it while it is."""
    jobs, first = client.fine_tuning.jobs, Worker()
    first.start()
    wait_for(lambda: "metrics" in {one.type for one in jobs.list_events(job)}, seconds=120, why="it trains")
    jobs.pause(job)
    first.join(120)
    held = jobs.retrieve(job)
    assert (held.status, held.to_dict()["shown_status"]) == ("queued", "paused")
    stopped_at = Job.objects.get().attempts.get().checkpoint_step
    Worker().run()
    assert Job.objects.get().attempt_number == 1, "a held job is not taken"
    return stopped_at


def train_to_the_end(client: OpenAI, job: str) -> None:
    client.fine_tuning.jobs.resume(job)
    second = Worker()
    second.start()
    second.join(150)
    done = client.fine_tuning.jobs.retrieve(job)
    assert done.status == "succeeded", done.error


def look_at_events(client: OpenAI, job: str, stopped_at: int) -> None:
    events = list(client.fine_tuning.jobs.list_events(job, limit=100))
    told = [one.message for one in events]
    assert told[0] == "The job has succeeded." and told[-1] == "The job was created."
    assert not stopped_at or any(one.startswith(f"Resuming after step {stopped_at}, from ") for one in told)
    steps = [one.data["step"] for one in events if "train_loss" in (one.data or {})]  # type: ignore[index,operator]
    assert sorted(steps) == list(range(1, 721)), "each step once, over both attempts"


def look_at_checkpoints(client: OpenAI, job: str) -> None:
    kept = list(client.fine_tuning.jobs.checkpoints.list(job))
    assert {one.step_number for one in kept} >= {480, 240}
    assert len(kept) <= 3
    assert all(one.metrics.valid_loss and one.metrics.train_loss for one in kept)
    done, names = client.fine_tuning.jobs.retrieve(job), {one.id for one in client.models.list()}
    assert {one.fine_tuned_model_checkpoint for one in kept} <= names
    assert done.fine_tuned_model in names and "threes" in str(done.fine_tuned_model)
    table = client.files.content(done.result_files[0]).text.splitlines()
    assert (len(table), table[0]) == (722, "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy")
    shares = [float(line.split(",")[2]) for line in table[2:]]
    assert all(0 <= one <= 1 for one in shares) and shares[-1] > shares[0], "over both attempts"
    assert kept[0].metrics.train_mean_token_accuracy is not None


def chat_with_what_it_made(client: OpenAI, talk: OpenAI, job: str) -> None:
    """The base model, the adapter and a checkpoint answer, whole and as a stream."""
    done, kept = client.fine_tuning.jobs.retrieve(job), list(client.fine_tuning.jobs.checkpoints.list(job))
    asked: Any = {"messages": [{"role": "user", "content": "What is 4?"}], "max_tokens": 12, "temperature": 0}
    said = {}
    for name in ("tiny", str(done.fine_tuned_model), kept[-1].fine_tuned_model_checkpoint):
        said[name] = talk.chat.completions.create(model=name, **asked).choices[0].message.content
        chunks = talk.chat.completions.create(model=name, stream=True, **asked)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == said[name]
    assert said[str(done.fine_tuned_model)] != said["tiny"], "the training shows"
