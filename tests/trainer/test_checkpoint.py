"""Checkpoints: a resumed run is the same run, and nothing half, damaged or foreign is ever gone on from."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.tiny import make_tiny_base
from tests.trainer.training import Training, make_rows, make_spec
from trainer.base_facts import fingerprint
from trainer.checkpoint import MANIFEST, find_checkpoint
from trainer.errors import Stopped, TrainerError
from trainer.events import Checkpoint, Emit, Evaluated, Event, Finished, Log, Phase, Progress, Sample
from trainer.manifest import sha256_of
from trainer.sft import train
from trainer.spec import TrainSpec


def make_run(base: Path, rows: Path, **parts: dict[str, Any]) -> TrainSpec:
    optim = {"max_steps": 12, "epochs": 10.0, **parts.pop("optim", {})}
    return make_spec(base, rows, lora={"r": 4, "lora_dropout": 0.1}, optim=optim, **parts)


@pytest.fixture(scope="module")
def whole(base: Path, rows: Path, tmp_path_factory: pytest.TempPathFactory) -> Training:
    return Training(make_run(base, rows), tmp_path_factory.mktemp("whole")).run()


def stopped_at(step: int, spec: TrainSpec, out: Path) -> Training:
    training = Training(spec, out, stop_at=step)
    with pytest.raises(Stopped):
        training.run()
    return training


def find(folder: Path, spec: TrainSpec, emit: Emit = print) -> Path | None:
    """The checkpoint to go on from, in a folder whose checkpoints are all of one dataset."""

    def read_rows() -> str:
        raise AssertionError("the rows are read without need")

    found = fingerprint(Path(spec.model.base))
    return find_checkpoint(folder, spec, emit, base_fingerprint=found, dataset_hash=read_rows)


def weights(training: Training) -> dict[str, torch.Tensor]:
    return load_file(training.out / "adapter" / "adapter_model.safetensors")


@pytest.mark.parametrize("step", [1, 5, 6, 11])
def test_a_resumed_run_is_the_same_run(base: Path, whole: Training, tmp_path: Path, step: int) -> None:
    """Same losses, rates, measurements and weights to the last bit, with dropout and in the midst of an epoch."""
    first = stopped_at(step, whole.spec, tmp_path / "first")
    assert first.of(Checkpoint)[-1] == Checkpoint(step=step, folder=f"checkpoints/step-{step:06d}")
    second = Training(whole.spec, tmp_path / "second").run(resume=tmp_path / "first" / f"checkpoints/step-{step:06d}")
    assert first.losses + second.losses == whole.losses
    assert first.accuracies + second.accuracies == whole.accuracies
    rates = [one.learning_rate for one in [*first.of(Progress), *second.of(Progress)]]
    assert rates == [one.learning_rate for one in whole.of(Progress)]
    assert [*first.of(Evaluated), *second.of(Evaluated)] == whole.measured
    for name, weight in weights(second).items():
        assert torch.equal(weight, weights(whole)[name])
    ends = [one.of(Finished)[0].facts for one in (second, whole)]
    assert ends[0]["trained_tokens"] == ends[1]["trained_tokens"]
    assert ends[0]["weights_sha256"] == ends[1]["weights_sha256"]
    counted = [json.loads(line)["step"] for line in (second.out / "adapter" / "metrics.jsonl").read_text().splitlines()]
    assert counted == [json.loads(line)["step"] for line in (whole.out / "adapter" / "metrics.jsonl").open()]


def test_stopped_before_the_first_step(whole: Training, tmp_path: Path) -> None:
    training = Training(whole.spec, tmp_path)
    training._should_stop = lambda: bool(training.measured)  # type: ignore[method-assign] # as soon as it is measured
    with pytest.raises(Stopped):
        training.run()
    assert training.of(Checkpoint)[-1].step == 0
    again = Training(whole.spec, tmp_path / "again").run(resume=tmp_path / "checkpoints")
    assert again.losses == whole.losses and not [one for one in again.measured if one.step == 0]


def test_a_run_leaves_its_last_two_checkpoints_and_nothing_else(whole: Training) -> None:
    steps = [one.step for one in whole.of(Checkpoint)]
    assert steps
    names = sorted(one.name for one in (whole.out / "checkpoints").iterdir())
    assert names == [f"step-{step:06d}" for step in steps[-2:]]


def test_a_second_run_into_the_same_folder_never_passes_off_the_first_ones(
    base: Path, rows: Path, whole: Training, tmp_path: Path
) -> None:
    first = stopped_at(5, whole.spec, tmp_path)
    folder = tmp_path / first.of(Checkpoint)[-1].folder
    before = json.loads((folder / MANIFEST).read_text())["files"]
    second = stopped_at(5, make_run(base, rows, optim={"seed": 1}), tmp_path)
    assert second.of(Checkpoint)[-1] == first.of(Checkpoint)[-1]
    assert json.loads((folder / MANIFEST).read_text())["files"] != before


def test_the_newest_sound_checkpoint_is_taken(whole: Training, tmp_path: Path) -> None:
    """One flipped bit, a missing file and a half-written folder: each is passed over with a word."""
    folder = tmp_path / "checkpoints"
    good = stopped_at(5, whole.spec, tmp_path / "run").of(Checkpoint)[-1]
    shutil.copytree(tmp_path / "run" / good.folder, folder / "step-000005")
    for step in (6, 7, 8):
        shutil.copytree(folder / "step-000005", folder / f"step-{step:06d}")
    data = bytearray((folder / "step-000006" / "lora.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "step-000006" / "lora.safetensors").write_bytes(data)
    (folder / "step-000007" / "optimizer.safetensors").unlink()
    (folder / "step-000008" / MANIFEST).unlink()
    (folder / ".tmp-abc").mkdir()
    said: list[Log] = []
    assert find(folder, whole.spec, said.append) == folder / "step-000005"  # type: ignore[arg-type]
    assert [one.text.split()[0] for one in said] == ["step-000008", "step-000007", "step-000006"]
    for step in (6, 7, 8):
        with pytest.raises(TrainerError, match="is damaged") as caught:
            find(folder / f"step-{step:06d}", whole.spec)
        assert caught.value.code == "input_changed"


def test_the_furthest_sound_checkpoint_of_any_run_is_taken(whole: Training, tmp_path: Path) -> None:
    """All of the newest run's are damaged, so an older run's is gone on from."""
    good = stopped_at(5, whole.spec, tmp_path / "a1").of(Checkpoint)[-1]
    for step in (3, 4):
        shutil.copytree(tmp_path / "a1" / good.folder, tmp_path / "a1" / "checkpoints" / f"step-{step:06d}")
    for step in (6, 10):
        shutil.copytree(tmp_path / "a1" / good.folder, tmp_path / "a2" / "checkpoints" / f"step-{step:06d}")
        (tmp_path / "a2" / "checkpoints" / f"step-{step:06d}" / "state.json").unlink()
    (tmp_path / "a3").mkdir()
    said: list[Log] = []
    assert find(tmp_path, whole.spec, said.append) == tmp_path / "a1" / good.folder  # type: ignore[arg-type]
    assert [one.text.split()[0] for one in said] == ["step-000010", "step-000006"]


def test_a_run_is_named_by_its_own_folder(whole: Training, tmp_path: Path) -> None:
    """As the command line has it: `--out run`, and later `--out run --resume run`."""
    made = stopped_at(5, whole.spec, tmp_path / "run").of(Checkpoint)[-1]
    assert find(tmp_path / "run", whole.spec) == tmp_path / "run" / made.folder
    second = Training(whole.spec, tmp_path / "run").run(resume=tmp_path / "run")
    assert second.losses == whole.losses[5:]


def test_without_a_sound_checkpoint_it_starts_afresh_and_says_so(whole: Training, tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    training = Training(whole.spec, tmp_path / "out").run(resume=tmp_path / "checkpoints")
    assert training.losses == whole.losses
    assert any("starting from the beginning" in one.text for one in training.of(Log))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"optim": {"learning_rate": 1e-3}}, ["optim.learning_rate is 0.001, and was 0.005"]),
        ({"optim": {"max_steps": 13}}, ["optim.max_steps is 13, and was 12"]),
        (
            {"lora": {"r": 4, "lora_alpha": 9.0}},
            ["lora.lora_alpha is 9.0, and was 8.0", "lora_dropout is 0.0, and was 0.1"],
        ),
    ],
)
def test_another_spec_is_refused(
    base: Path, rows: Path, whole: Training, tmp_path: Path, change: dict[str, Any], said: list[str]
) -> None:
    """Every value with what it was: whoever wants to go on sets it back."""
    stopped_at(3, whole.spec, tmp_path)
    optim = {"max_steps": 12, "epochs": 10.0, **change.get("optim", {})}
    lora = change.get("lora", {"r": 4, "lora_dropout": 0.1})
    training = Training(make_spec(base, rows, lora=lora, optim=optim), tmp_path / "2")
    with pytest.raises(TrainerError, match="The spec differs from that of step-000003: ") as caught:
        training.run(resume=tmp_path / "checkpoints")
    assert [one.name for one in training.of(Phase)] == ["preparing"], "before the base is loaded"
    assert caught.value.code == "input_changed" and all(one in caught.value.text for one in said)
    for one in said:
        value, was = one.split(" is ")[0], one.rpartition(" ")[2]
        assert f"{value} to {was}" in caught.value.fix
    assert caught.value.fix.endswith(" to resume from it, or start the training afresh.")


def test_another_dataset_or_base_is_refused(base: Path, whole: Training, tmp_path: Path) -> None:
    stopped_at(3, whole.spec, tmp_path)
    changed = make_rows(tmp_path)
    changed.write_text(changed.read_text().replace("cats", "dogs", 1))
    with pytest.raises(TrainerError, match="The rows of rows.jsonl are not those that step-000003") as caught:
        Training(make_run(base, changed), tmp_path / "2").run(resume=tmp_path / "checkpoints")
    assert caught.value.code == "input_changed"
    assert caught.value.fix == "Restore rows.jsonl to resume from it, or start the training afresh."
    other = make_tiny_base(tmp_path / "base", seed=1)
    with pytest.raises(TrainerError, match="base is not the base model that step-000003 was"):
        Training(make_run(other, make_rows(tmp_path)), tmp_path / "3").run(resume=tmp_path / "checkpoints")


def test_other_ends_of_answers_are_refused(base: Path, whole: Training, tmp_path: Path) -> None:
    """The base's generation_config.json decides which tokens are learnt. Older checkpoints do not tell them."""
    stopped_at(3, whole.spec, tmp_path)
    folder, rows = shutil.copytree(base, tmp_path / "base"), Path(whole.spec.data.path)
    (folder / "generation_config.json").write_text('{"eos_token_id": 13}')
    with pytest.raises(TrainerError, match="The tokens that end an answer are ") as caught:
        Training(make_run(folder, rows), tmp_path / "2").run(resume=tmp_path / "checkpoints")
    assert caught.value.code == "input_changed" and "Restore generation_config.json of base" in caught.value.fix
    manifest = tmp_path / "checkpoints" / "step-000003" / MANIFEST
    facts = json.loads(manifest.read_text())
    assert facts.pop("stop_ids")
    manifest.write_text(json.dumps(facts))
    older = Training(whole.spec, tmp_path / "3").run(resume=tmp_path / "checkpoints")
    assert older.losses == whole.losses[3:]


def test_an_older_checkpoint_of_these_rows_comes_before_a_later_one_of_others(
    base: Path, whole: Training, tmp_path: Path
) -> None:
    """A folder of runs over two datasets and two bases, all with one spec; raw files and a file of their own too."""
    changed = make_rows(tmp_path)
    changed.write_text(changed.read_text().replace("cats", "dogs", 1))
    other = make_tiny_base(tmp_path / "base", seed=1)
    runs = tmp_path / "runs"
    stopped_at(2, whole.spec, runs / "1")
    stopped_at(4, make_run(base, changed), runs / "2")
    stopped_at(6, make_run(other, Path(whole.spec.data.path)), runs / "3")
    resumed = Training(whole.spec, tmp_path / "out").run(resume=runs)
    assert resumed.losses == whole.losses[2:]
    assert Training(make_run(base, changed), tmp_path / "2").run(resume=runs).of(Progress)[0].step == 5
    held_out = {"holdout": 0.0, "holdout_path": whole.spec.data.path}
    stopped_at(3, make_run(base, changed, data=held_out), runs / "4")
    stopped_at(5, make_run(base, Path(whole.spec.data.path), data=held_out), runs / "5")
    assert Training(make_run(base, changed, data=held_out), tmp_path / "3").run(resume=runs).of(Progress)[0].step == 4


def test_own_damaged_checkpoints_are_not_replaced_by_another_runs(whole: Training, tmp_path: Path) -> None:
    stopped_at(1, whole.spec, tmp_path)
    (tmp_path / "checkpoints" / "step-000001" / "state.json").unlink()
    stopped_at(9, dataclasses.replace(whole.spec, optim=dataclasses.replace(whole.spec.optim, seed=7)), tmp_path / "7")
    said: list[Log] = []
    assert find(tmp_path, whole.spec, said.append) is None  # type: ignore[arg-type]
    assert [one.text.split()[0] for one in said] == ["step-000001", "No"]


def test_an_evaluation_after_a_checkpoint_is_kept_when_the_run_is_stopped_there(
    base: Path, rows: Path, whole: Training, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.checkpoint.SAVING_SHARE", 1e9)  # one is due at every tenth of the steps
    spec = make_run(base, rows, evaluation={"every_steps": 4})
    training = Training(spec, tmp_path)
    training._should_stop = lambda: any(one.step == 4 for one in training.measured)  # type: ignore[method-assign]
    with pytest.raises(Stopped):
        training.run()
    assert [one.step for one in training.of(Checkpoint)][-2:] == [4, 4]
    second = Training(spec, tmp_path / "2").run(resume=tmp_path)
    assert [one.step for one in second.measured] == [8, 12]
    assert training.losses + second.losses == Training(spec, tmp_path / "3").run().losses


def test_rows_are_only_read_where_checkpoints_are_of_several_datasets(whole: Training, tmp_path: Path) -> None:
    made = stopped_at(2, whole.spec, tmp_path).of(Checkpoint)[-1]
    assert find(tmp_path, whole.spec) == tmp_path / made.folder


def test_going_on_in_the_same_folder_never_has_less_than_before(
    whole: Training, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped again at once, or with a disk that is full meanwhile: the checkpoint it came from stays."""
    stopped_at(5, whole.spec, tmp_path)
    folder = tmp_path / "checkpoints"
    kept = sorted(folder.iterdir())

    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken, pytest.raises(Stopped):
        broken.setattr("trainer.checkpoint.save_file", full)
        train(whole.spec, out=tmp_path, resume=folder, emit=lambda event: None, should_stop=after(3))
    assert sorted(folder.iterdir()) == kept
    training = Training(whole.spec, tmp_path).run(resume=folder)
    assert training.losses == whole.losses[5:]
    assert len(list(folder.iterdir())) == 2


def test_another_runs_checkpoints_in_the_folder_are_passed_over(whole: Training, tmp_path: Path) -> None:
    stopped_at(9, dataclasses.replace(whole.spec, optim=dataclasses.replace(whole.spec.optim, seed=7)), tmp_path)
    stopped_at(2, whole.spec, tmp_path)
    assert Training(whole.spec, tmp_path).run(resume=tmp_path / "checkpoints").losses == whole.losses[2:]


def test_values_that_are_new_since_the_checkpoint_have_their_defaults(whole: Training, tmp_path: Path) -> None:
    stopped_at(4, whole.spec, tmp_path)
    file = tmp_path / "checkpoints" / "step-000004" / MANIFEST
    manifest = json.loads(file.read_text())
    del manifest["spec"]["optim"]["weight_decay"]
    file.write_text(json.dumps(manifest))
    assert Training(whole.spec, tmp_path).run(resume=tmp_path / "checkpoints").losses == whole.losses[4:]


def test_a_checkpoint_of_a_newer_trainer_is_named(whole: Training, tmp_path: Path) -> None:
    stopped_at(2, whole.spec, tmp_path)
    folder = tmp_path / "checkpoints" / "step-000002"
    state = json.loads((folder / "state.json").read_text())
    (folder / "state.json").write_text(json.dumps({**state, "phase_of_moon": 1}))
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"]["state.json"]["sha256"] = sha256_of(folder / "state.json")
    (folder / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(TrainerError, match=r"newer trainer: it contains phase_of_moon") as caught:
        Training(whole.spec, tmp_path / "2").run(resume=folder)
    assert caught.value.code == "input_changed"


def test_probes_are_answered_again_when_a_stop_fell_between_them(base: Path, rows: Path, tmp_path: Path) -> None:
    spec = make_run(base, rows, evaluation={"every_steps": 2, "probes": ["What is a cat?", "What is a dog?"]})
    seen: list[Event] = []

    def stop() -> bool:
        return any(isinstance(one, Sample) and one.step == 2 for one in seen)

    with pytest.raises(Stopped):
        train(spec, out=tmp_path, resume=None, emit=seen.append, should_stop=stop)
    seen.clear()
    training = Training(spec, tmp_path).run(resume=tmp_path / "checkpoints")
    assert [one.prompt for one in training.of(Sample) if one.step == 2] == list(spec.evaluation.probes)
    assert [one.step for one in training.measured] == [2, 4, 6, 8, 10, 12]


def after(calls: int) -> Callable[[], bool]:
    """A wish to stop that is there from the call with this number on."""
    left = iter(range(calls))
    return lambda: next(left, None) is None


def test_other_paths_and_another_cut_are_welcome(base: Path, tmp_path: Path) -> None:
    """A second machine has its files elsewhere, and less memory."""
    optim: dict[str, Any] = {"max_steps": 12}
    plain = Training(make_spec(base, make_rows(tmp_path), optim=optim), tmp_path / "1").run()
    stopped_at(6, plain.spec, tmp_path)
    moved = shutil.copytree(base, tmp_path / "elsewhere")
    optim |= {"micro_batch_tokens": 128, "gradient_checkpointing": True}
    spec = make_spec(moved, make_rows(tmp_path), optim=optim)
    training = Training(spec, tmp_path / "2").run(resume=tmp_path / "checkpoints")
    assert training.losses == pytest.approx(plain.losses[6:], rel=1e-4)


def test_checkpoints_of_an_earlier_run_in_the_same_folder_are_told(whole: Training, tmp_path: Path) -> None:
    first = stopped_at(5, whole.spec, tmp_path)
    assert not [one for one in first.of(Log) if "earlier run" in one.text]
    again = stopped_at(1, whole.spec, tmp_path)
    said = [one.text for one in again.of(Log) if "earlier run" in one.text]
    assert said and "up to step-000005" in said[0] and "--resume" in said[0]
    resumed = Training(whole.spec, tmp_path).run(resume=tmp_path)
    assert not [one for one in resumed.of(Log) if "earlier run" in one.text]
