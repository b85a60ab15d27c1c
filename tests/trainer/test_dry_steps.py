"""Dry passes before the first step: they tell whether memory holds a training, and leave nothing behind."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trainer.test_out_of_memory import fake_lack
from tests.trainer.training import Training, make_judged, make_pairs, make_rows, make_spec
from trainer import dry_steps, preparation
from trainer.errors import TrainerError
from trainer.estimate import Estimate, estimate
from trainer.events import Log, Memory, Progress
from trainer.run import Run
from trainer.spec import TrainSpec

MAKERS = {"sft": make_rows, "dpo": make_pairs, "kto": make_judged}


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, and as near the limit of a processor's memory."""
    monkeypatch.setattr(dry_steps, "NEAR_LIMIT", 0.0)


def make(base: Path, folder: Path, method: str = "sft", **parts: dict[str, Any]) -> TrainSpec:
    rows = MAKERS[method](folder)
    return make_spec(base, rows, **{"data": {"method": method}, "optim": {"max_steps": 4}, **parts})


def dry_logs(training: Training) -> list[str]:
    return [one.text for one in training.of(Log) if "dry passes" in one.text]


def weights(out: Path) -> bytes:
    return (out / "adapter" / "adapter_model.safetensors").read_bytes()


@pytest.mark.parametrize("method", ["sft", "dpo", "kto"])
def test_they_change_nothing(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    """Bit by bit, with dropout and noise that draw random numbers in every pass."""
    options = {"lora": {"lora_dropout": 0.2}, "optim": {"max_steps": 4, "neftune_noise_alpha": 5.0}}
    spec = make(base, tmp_path, method, **options)
    plain = Training(spec, tmp_path / "1").run()
    monkeypatch.setattr(dry_steps, "NEAR_LIMIT", 0.0)
    tried = Training(spec, tmp_path / "2").run()
    assert not dry_logs(plain) and len(dry_logs(tried)) == 1
    assert tried.losses == plain.losses and tried.measured == plain.measured
    assert weights(tmp_path / "1") == weights(tmp_path / "2")


def test_the_verdict_comes_before_the_first_step(always: None, base: Path, tmp_path: Path) -> None:
    training = Training(make(base, tmp_path), tmp_path / "out").run()
    first, last = training.of(Memory)
    steps = [one for one in training.events if isinstance(one, Memory | Progress)]
    assert steps[0] is first and first.step == 0 and steps[-1] is last and last.step == 4
    assert first.device == "cpu" and 0 < first.peak_bytes <= last.peak_bytes and first.foretold_bytes > 0


@pytest.mark.parametrize("aside", [False, True])
def test_the_estimate_of_a_run_is_of_the_steps_it_has(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, aside: bool
) -> None:
    """Its rows are divided already; the held-out ones still count among the dataset's rows."""
    spec = make(base, tmp_path, data={"holdout": 0.4}, optim={"epochs": 1.0})
    if aside:
        spec = make_spec(base, Path(spec.data.path), data={"holdout_path": spec.data.path}, optim={"epochs": 1.0})
    found, asked = [], []

    def remembered(spec: TrainSpec, facts: Any, **more: Any) -> Estimate:
        asked.append(more["rows"])
        return estimate(spec, facts, **more)

    def look(run: Run) -> Estimate:
        one = dry_steps.estimate_run(run)
        found.append((one.steps, run.plan.steps, len(run.dataset.train) + len(run.dataset.holdout)))
        return one

    monkeypatch.setattr(dry_steps, "estimate", remembered)
    monkeypatch.setattr("trainer.sft.estimate_run", look)
    Training(spec, tmp_path / "out").run()
    ((estimated, planned, rows),) = found
    assert estimated == planned > 2 and asked == [rows]


def test_too_little_memory_ends_it_before_the_first_step(
    always: None, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = Training(make(base, tmp_path, data={"holdout": 0.0}), tmp_path / "out")
    fake_lack(monkeypatch, range(1_000), torch.OutOfMemoryError)
    with pytest.raises(TrainerError, match=r"at step 1, in passes of .* GB at its peak") as caught:
        training.run()
    assert caught.value.code == "out_of_memory" and not training.losses


def test_a_lack_in_them_halves_the_passes(
    always: None, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = make(base, tmp_path, optim={"max_steps": 2, "micro_batch_tokens": 256})
    fake_lack(monkeypatch, range(1), torch.OutOfMemoryError)
    training = Training(spec, tmp_path / "out").run()
    assert any("passes of up to 128 tokens instead of 256" in one.text for one in training.of(Log))
    assert len(training.losses) == 2 and len(dry_logs(training)) == 1


def test_a_processor_is_not_filled_to_its_end(
    always: None, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a pass is tried first: where twice as much would not fit, the whole one is not begun."""
    monkeypatch.setattr("trainer.device._free_ram", lambda: 1_000)
    seen: list[int] = []
    genuine = dry_steps._dry_pass

    def counted(run: Any, rows: Any) -> int:
        seen.append(len(rows))
        return genuine(run, rows)

    monkeypatch.setattr(dry_steps, "_dry_pass", counted)
    with pytest.raises(TrainerError, match="ran out of memory at step 1"):
        Training(make(base, tmp_path, optim={"micro_batch_tokens": 1 << 14}), tmp_path / "out").run()
    assert seen == [2, 1], "half of four rows, then half of the two that go through at once; never the whole"


def test_the_largest_pass_is_that_of_the_longest_rows(base: Path, tmp_path: Path) -> None:
    spec = make(base, tmp_path, optim={"max_steps": 6, "micro_batch_tokens": 10_000, "batch_size": 3})
    found: list[int] = []

    def look(run: Any) -> float:
        rows = dry_steps.largest_pass(run).rows
        of_steps = [sum(row.length for row in run.plan.window(step)) for step in range(run.plan.steps)]
        found.extend([sum(row.length for row in rows), max(of_steps)])
        return 0.0

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(dry_steps, "NEAR_LIMIT", 0.0)
        patched.setattr("trainer.sft.run_dry_steps", look)
        Training(spec, tmp_path / "out").run()
    assert found[0] == found[1]


def test_a_peak_of_loading_is_not_taken_for_that_of_a_pass(
    always: None, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A base that is read and quantised leaves a peak far above what is held then."""
    genuine = preparation.load_adapted

    def loaded(*given: Any, **told: Any) -> Any:
        del given_back[:]
        return genuine(*given, **told)

    given_back = [bytearray(b"x") * (1500 << 20)]
    monkeypatch.setattr(preparation, "load_adapted", loaded)
    monkeypatch.setattr("trainer.device._free_ram", lambda: 1_000_000_000)
    spec = make(base, tmp_path, data={"holdout": 0.0}, optim={"max_steps": 2, "micro_batch_tokens": 2048})
    training = Training(spec, tmp_path / "out").run()
    assert len(training.losses) == 2 and dry_logs(training)
    assert training.of(Memory)[0].peak_bytes > 1500 << 20, "the whole run's peak is told as ever"
