"""The whole way with the official client and a real trainer: files, wait, train, pause, resume, events, checkpoints."""

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from django.db import connections
from openai import OpenAI

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
def test_from_files_to_checkpoints(client: OpenAI, people: Cast, tmp_path: Path) -> None:
    jobs = client.fine_tuning.jobs
    make_base(name="Tiny", path=make_tiny_base(tmp_path / "base"))
    training, validation = upload(client, "train.jsonl", 24), upload(client, "valid.jsonl", 5)
    own: Any = {
        "model": {"quantization": "none", "dtype": "float32"},
        "data": {"max_seq_length": 64},
        "evaluation": {"every_steps": 80, "forgetting": False},
    }
    hyper: Any = {"n_epochs": 40, "batch_size": 4, "learning_rate_multiplier": 5}
    made = jobs.create(
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
    assert jobs.retrieve(made.id).status == "queued"

    first = Worker()
    first.start()
    wait_for(lambda: "metrics" in {one.type for one in jobs.list_events(made.id)}, seconds=120, why="it trains")
    jobs.pause(made.id)
    first.join(120)
    held = jobs.retrieve(made.id)
    assert (held.status, held.to_dict()["shown_status"]) == ("queued", "paused")
    stopped_at = Job.objects.get().attempts.get().checkpoint_step
    Worker().run()
    assert Job.objects.get().attempt_number == 1, "a held job is not taken"

    jobs.resume(made.id)
    second = Worker()
    second.start()
    second.join(150)
    done = jobs.retrieve(made.id)
    assert done.status == "succeeded", done.error
    told = [one.message for one in jobs.list_events(made.id, limit=100)]
    assert told[0] == "The job has succeeded." and told[-1] == "The job was created."
    assert f"Going on after step {stopped_at}" in told or not stopped_at
    steps = [one.data["step"] for one in jobs.list_events(made.id, limit=100) if "train_loss" in (one.data or {})]  # type: ignore[index,operator]
    assert sorted(steps) == list(range(1, 241)), "each step once, over both attempts"

    kept = list(jobs.checkpoints.list(made.id))
    assert {one.step_number for one in kept} >= {160, 80}
    assert len(kept) <= 3
    assert all(one.metrics.valid_loss and one.metrics.train_loss for one in kept)
    names = {one.id for one in client.models.list()}
    assert {one.fine_tuned_model_checkpoint for one in kept} <= names
    assert done.fine_tuned_model in names and "threes" in str(done.fine_tuned_model)
    table = client.files.content(done.result_files[0]).text.splitlines()
    assert (len(table), table[0]) == (242, "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy")

    final = Adapter.objects.get(of=None)
    assert final.metrics["evaluation_rows"] == 5, "the second file's rows, all of them"
    assert DatasetVersion.objects.count() == 2
    assert all(read_config(one.folder / "adapter_config.json").r == 16 for one in Adapter.objects.all())
