"""The best measured weights are kept and published, patience ends a run, and both survive a stop at any step."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.trainer.training import Training, make_spec
from trainer.errors import Stopped
from trainer.events import Finished, Log, Progress
from trainer.spec import TrainSpec

WORDS = ("cat", "dog", "mat", "ball", "the", "ran", "sat", "France", "Paris", "short")


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Words in no order: their frequency can be learnt, and then nothing but the rows themselves."""
    dice = random.Random(0)

    def said() -> str:
        return " ".join(dice.choices(WORDS, k=12))

    rows = [[{"role": "user", "content": said()}, {"role": "assistant", "content": said()}] for _ in range(16)]
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    path.write_text("\n".join(json.dumps({"messages": one}) for one in rows))
    return path


def overfitting(base: Path, rows: Path, **evaluation: Any) -> TrainSpec:
    """So long that the held-out loss falls, and then rises."""
    optim = {"epochs": 50.0, "max_steps": 24, "learning_rate": 0.01, "schedule": "constant", "warmup_ratio": 0.0}
    return make_spec(base, rows, data={"holdout": 0.2}, optim=optim, evaluation={"every_steps": 2, **evaluation})


@pytest.fixture(scope="module")
def whole(base: Path, rows: Path, tmp_path_factory: pytest.TempPathFactory) -> Training:
    return Training(overfitting(base, rows), tmp_path_factory.mktemp("whole")).run()


def best_of(training: Training) -> int:
    return int(min((one for one in training.measured if one.step), key=lambda one: one.loss).step)


def weights(training: Training) -> dict[str, torch.Tensor]:
    return load_file(training.out / "adapter" / "adapter_model.safetensors")


def facts(training: Training) -> dict[str, Any]:
    found: dict[str, Any] = training.of(Finished)[0].facts
    return found


def stopped_at(step: int, spec: TrainSpec, out: Path) -> Training:
    training = Training(spec, out, stop_at=step)
    with pytest.raises(Stopped):
        training.run()
    return training


def test_the_published_weights_are_those_of_the_best_measurement(whole: Training, tmp_path: Path) -> None:
    best = best_of(whole)
    assert 4 <= best <= 20
    assert facts(whole)["published_step"] == best and facts(whole)["steps"] == facts(whole)["planned_steps"] == 24
    measured = {one.step: one.loss for one in whole.measured}
    assert facts(whole)["evaluation_loss"] == measured[best] < measured[24]
    assert facts(whole)["loss"] == whole.losses[best - 1]
    stopped_at(best, whole.spec, tmp_path)
    then = load_file(tmp_path / f"checkpoints/step-{best:06d}/lora.safetensors")
    assert all(torch.equal(weight, then[name]) for name, weight in weights(whole).items())
    card = (whole.out / "adapter" / "README.md").read_text()
    assert f"those of step {best}, the best on the held-out rows" in card


def test_the_last_weights_on_request(base: Path, rows: Path, whole: Training, tmp_path: Path) -> None:
    last = Training(overfitting(base, rows, keep_best=False), tmp_path).run()
    assert last.losses == whole.losses
    assert facts(last)["published_step"] == 24 and facts(last)["evaluation_loss"] == last.measured[-1].loss
    assert any(not torch.equal(weight, weights(whole)[name]) for name, weight in weights(last).items())


@pytest.mark.parametrize("after_best", [-1, 0, 1, 3])
def test_a_resumed_run_publishes_the_same_best(whole: Training, tmp_path: Path, after_best: int) -> None:
    """From any step, and in another folder: each checkpoint carries the best weights so far."""
    step = best_of(whole) + after_best
    stopped_at(step, whole.spec, tmp_path / "1")
    again = Training(whole.spec, tmp_path / "2").run(resume=tmp_path / "1" / f"checkpoints/step-{step:06d}")
    assert again.losses == whole.losses[step:]
    assert facts(again)["weights_sha256"] == facts(whole)["weights_sha256"]
    assert facts(again)["published_step"] == best_of(whole)


def test_patience_ends_the_run(base: Path, rows: Path, whole: Training, tmp_path: Path) -> None:
    """The second measurement in a row that is no better than the best ends it; a stop just then changes nothing."""
    spec = overfitting(base, rows, patience=2)
    training = Training(spec, tmp_path / "1").run()
    losses = [one.loss for one in training.measured[1:]]
    assert min(losses[-2:]) >= min(losses[:-2]) == losses[-3]
    end = training.of(Progress)[-1].step
    assert end == training.measured[-1].step < 24 and training.losses == whole.losses[:end]
    assert facts(training)["steps"] == end and facts(training)["planned_steps"] == 24
    said = f"Stopped early after step {end} of 24: 2 evaluations without a lower loss on held-out rows"
    assert said in [one.text for one in training.of(Log)]
    assert f"after step {end} of 24" in (tmp_path / "1" / "adapter" / "README.md").read_text()
    stopped_at(end, spec, tmp_path / "2")
    again = Training(spec, tmp_path / "3").run(resume=tmp_path / "2" / "checkpoints")
    assert facts(again)["weights_sha256"] == facts(training)["weights_sha256"] and not again.losses


def test_the_first_measurement_never_ends_a_run(base: Path, rows: Path, tmp_path: Path) -> None:
    """Worse than the base model is no reason: what counts is whether it still gets better."""
    spec = overfitting(base, rows, patience=1)
    training = Training(spec, tmp_path).run()
    assert len(training.measured) >= 3


def test_patience_needs_held_out_rows(base: Path, rows: Path) -> None:
    spec = make_spec(base, rows, data={"holdout": 0.0}, evaluation={"patience": 2})
    assert [one.path for one in spec.issues()] == ["evaluation.patience"]
    assert not make_spec(base, rows, evaluation={"patience": 2}).issues()


def test_a_checkpoint_of_an_older_trainer_is_gone_on_from(whole: Training, tmp_path: Path) -> None:
    """It knows of no best step: the search begins anew."""
    step = best_of(whole) + 1
    stopped_at(step, whole.spec, tmp_path)
    folder = tmp_path / f"checkpoints/step-{step:06d}"
    state = json.loads((folder / "state.json").read_text())
    assert state.pop("best_step") == best_of(whole)
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "best.safetensors").unlink()
    manifest = json.loads((folder / "MANIFEST.json").read_text())
    manifest["files"] = {name: one for name, one in manifest["files"].items() if name == "lora.safetensors"}
    (folder / "MANIFEST.json").write_text(json.dumps(manifest))
    again = Training(whole.spec, tmp_path / "2").run(resume=folder)
    assert facts(again)["published_step"] > step
