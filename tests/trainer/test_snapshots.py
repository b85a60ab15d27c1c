"""Adapters on the way: few, spread over the run, exactly what the run was then, and still there after a stop."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from tests.trainer.training import Training, make_rows, make_spec
from trainer import snapshots
from trainer.adapter_format import MANIFEST, WEIGHTS
from trainer.errors import Stopped, TrainerError
from trainer.events import Evaluated, Finished, Log
from trainer.manifest import verify
from trainer.ranks import Ranks
from trainer.run import Run
from trainer.snapshots import adopt_snapshots
from trainer.spec import TrainSpec


def long_spec(base: Path, rows: Path, **evaluation: Any) -> TrainSpec:
    values = {"every_steps": 2, "forgetting": False, "keep_best": False, **evaluation}
    return make_spec(base, rows, optim={"epochs": 50.0, "max_steps": 12}, evaluation=values)


def kept(training: Training) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = training.of(Finished)[0].facts["checkpoints"]
    return found


def weights(training: Training, one: dict[str, Any]) -> dict[str, torch.Tensor]:
    return load_file(training.out / one["folder"] / WEIGHTS)


@pytest.fixture(scope="module")
def whole(base: Path, rows: Path, tmp_path_factory: pytest.TempPathFactory) -> Training:
    return Training(long_spec(base, rows), tmp_path_factory.mktemp("whole")).run()


def test_a_third_and_two_thirds_of_the_run_are_kept_with_what_was_measured_then(whole: Training) -> None:
    found = kept(whole)
    assert [one["step"] for one in found][:2] == [4, 8]
    assert len(found) <= 3
    assert len(list((whole.out / "snapshots").iterdir())) <= 3
    measured = {one.step: one for one in whole.measured}
    for one in found:
        assert (one["evaluation_loss"], one["accuracy"]) == (measured[one["step"]].loss, measured[one["step"]].accuracy)
        assert one["loss"] == whole.losses[one["step"] - 1]


def test_the_best_is_kept_where_the_last_is_published(base: Path, rows: Path, tmp_path: Path) -> None:
    """At a rate that spoils it from the third evaluation on."""
    spec = long_spec(base, rows, every_steps=1)
    training = Training(spec, tmp_path).run()
    measured = [one for one in training.measured if one.step]
    best = min(measured, key=lambda one: one.loss).step
    steps = {one["step"] for one in kept(training)} | {training.of(Finished)[0].facts["published_step"]}
    assert best in steps


def test_it_is_the_run_as_it_was_then(whole: Training, base: Path, rows: Path, tmp_path: Path) -> None:
    """A run that stops at step 4 holds the same weights: the schedule is the same, so is all before."""
    stopped = Training(long_spec(base, rows), tmp_path, stop_at=4)
    with pytest.raises(Stopped):
        stopped.run()
    checkpoint = load_file(tmp_path / "checkpoints" / "step-000004" / "lora.safetensors")
    snapshot = weights(whole, kept(whole)[0])
    assert snapshot.keys() == checkpoint.keys()
    assert all(torch.equal(snapshot[name], checkpoint[name]) for name in checkpoint)


def test_it_loads_in_plain_peft(whole: Training, base: Path) -> None:
    first, second = (whole.out / one["folder"] for one in kept(whole)[:2])
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    plain = PeftModel.from_pretrained(model, str(first), adapter_name="first")
    plain.load_adapter(str(second), adapter_name="second")
    ids = torch.arange(40)[None]
    said = []
    with torch.no_grad():
        for name in ("first", "second"):
            plain.set_adapter(name)
            said.append(plain(ids).logits)
    assert not torch.allclose(*said, atol=1e-3)
    manifest = verify(first, name=MANIFEST)
    assert (manifest["step"], manifest["published_step"]) == (4, 4)
    assert "checkpoint on the way to 12 steps" in (first / "README.md").read_text()


def test_they_outlive_a_stop_and_another_folder(whole: Training, base: Path, rows: Path, tmp_path: Path) -> None:
    spec = long_spec(base, rows)
    with pytest.raises(Stopped):
        Training(spec, tmp_path / "a1", stop_at=6).run()
    again = Training(spec, tmp_path / "a2").run(resume=tmp_path)
    assert [one["step"] for one in kept(again)] == [one["step"] for one in kept(whole)]
    for mine, other in zip(kept(again), kept(whole), strict=True):
        ours, theirs = weights(again, mine), weights(whole, other)
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_of_several_processes_the_first_takes_them_over(base: Path, rows: Path, tmp_path: Path) -> None:
    """Two at once would take each other's folders away."""
    spec, runs = long_spec(base, rows), list[Run]()
    with pytest.raises(Stopped):
        Training(spec, tmp_path / "a1", stop_at=6).run()
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stopped):
        patch.setattr("trainer.sft.adopt_snapshots", runs.append)
        Training(spec, tmp_path / "a2", stop_at=6).run(resume=tmp_path)
    known = list(runs[0].position.snapshots)
    for rank, there in ((1, False), (0, True)):
        adopt_snapshots(dataclasses.replace(runs[0], ranks=Ranks(rank, 2)))
        assert (tmp_path / "a2" / "snapshots" / "step-000004").is_dir() is there
        assert runs[0].position.snapshots == known


def test_a_damaged_one_is_let_go(base: Path, rows: Path, tmp_path: Path) -> None:
    spec = long_spec(base, rows)
    with pytest.raises(Stopped):
        Training(spec, tmp_path / "a1", stop_at=6).run()
    (tmp_path / "a1" / "snapshots" / "step-000004" / WEIGHTS).write_bytes(b"cut off")
    again = Training(spec, tmp_path / "a2").run(resume=tmp_path)
    steps = [one["step"] for one in kept(again)]
    assert 4 not in steps and 8 in steps


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
    ids=["a small file", "the weights"],
)
def test_a_full_disk_costs_the_snapshot_alone(
    base: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    real = snapshots.write_adapter

    def full(run: Any, target: Path, facts: dict[str, Any]) -> dict[str, Any]:
        if facts["step"] == 4:
            raise error
        return real(run, target, facts)

    monkeypatch.setattr(snapshots, "write_adapter", full)
    training = Training(long_spec(base, rows, keep_best=True), tmp_path).run()
    assert 4 not in [one["step"] for one in kept(training)]
    (said,) = [one.text for one in training.of(Log) if "step 4 could not be saved: " in one.text]
    assert "No space left on device" in said


def test_without_evaluations_thirds_are_kept_all_the_same(base: Path, rows: Path, tmp_path: Path) -> None:
    spec = make_spec(base, rows, optim={"max_steps": 6}, data={"holdout": 0.0})
    training = Training(spec, tmp_path).run()
    assert [one["step"] for one in kept(training)] == [2, 4]
    assert "evaluation_loss" not in kept(training)[0]


def test_one_step_has_none(base: Path, rows: Path, tmp_path: Path) -> None:
    assert kept(Training(make_spec(base, rows, optim={"max_steps": 1}), tmp_path).run()) == []


def test_a_second_file_is_what_is_measured_on(base: Path, rows: Path, tmp_path: Path) -> None:
    aside = make_rows(tmp_path, count=5)
    data = {"holdout": 0.3, "holdout_path": str(aside)}
    training = Training(make_spec(base, rows, data=data, optim={"max_steps": 2}), tmp_path / "out").run()
    assert {one.rows for one in training.of(Evaluated)} == {5}
    manifest = json.loads((tmp_path / "out" / "adapter" / MANIFEST).read_text())
    assert (manifest["learnt_rows"], manifest["held_out_rows"]) == (24, 5)
    assert json.loads((tmp_path / "out" / "adapter" / "spec.json").read_text())["data"]["holdout_path"] == "rows.jsonl"


def test_a_second_file_of_other_rows_is_refused(base: Path, rows: Path, tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text(json.dumps({"prompt": "What?", "chosen": "This.", "rejected": "That."}))
    with pytest.raises(TrainerError, match="data.method"):
        Training(make_spec(base, rows, data={"holdout_path": str(pairs)}), tmp_path / "out").run()
