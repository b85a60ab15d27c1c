"""Memory that does not hold a step: once more with half as much at a time, or an end with a name.

Lacks are fake where they must come at a certain pass; one real one is at the end.
"""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModelForCausalLM

from tests.trainer.test_several_gpus import in_two
from tests.trainer.training import Training, make_pairs, make_rows, make_spec
from trainer import preparation
from trainer.errors import Stopped, TrainerError
from trainer.events import Event, Finished, Log, Progress, Sample
from trainer.manifest import verify
from trainer.model import AdaptedModel
from trainer.spec import TrainSpec

BUDGET = 256
ROOM = 570 << 20  # bytes, for what comes after loading: the whole pass needs some 750 MB, half of it 450
MEASURING_ROOM = 52 << 20


@pytest.fixture(scope="module")
def spec(base: Path, rows: Path) -> TrainSpec:
    return make_spec(base, rows, optim={"max_steps": 6, "micro_batch_tokens": BUDGET})


def fake_lack(monkeypatch: pytest.MonkeyPatch, passes: range, error: type[Exception]) -> None:
    """Let the passes of training with these numbers fail as an allocation does."""
    genuine, numbers = AdaptedModel.hidden, iter(range(1_000))

    def hidden(model: AdaptedModel, *read: Any, **told: Any) -> torch.Tensor:
        if torch.is_grad_enabled() and next(numbers) in passes:
            raise error("fake: can't allocate memory")
        return genuine(model, *read, **told)

    monkeypatch.setattr("trainer.model.AdaptedModel.hidden", hidden)


def test_the_second_try_is_smaller_where_a_pass_might_have_held_more(
    spec: TrainSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A window smaller than the passes that memory was thought to hold goes through whole: half of these is no less."""
    wide = dataclasses.replace(spec, optim=dataclasses.replace(spec.optim, micro_batch_tokens=1 << 14))
    plain = Training(wide, tmp_path / "1").run()
    seen: list[int] = []
    genuine = AdaptedModel.hidden

    def limited(model: AdaptedModel, ids: torch.Tensor, *read: Any, **told: Any) -> Any:
        if torch.is_grad_enabled():
            seen.append(ids.numel())
            if ids.numel() > seen[0] * 2 // 3:
                raise torch.OutOfMemoryError("fake: no room for a pass of this size")
        return genuine(model, ids, *read, **told)

    monkeypatch.setattr("trainer.model.AdaptedModel.hidden", limited)
    training = Training(wide, tmp_path / "2").run()
    assert training.losses == pytest.approx(plain.losses, rel=1e-5)
    assert seen[1] < seen[0]


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, RuntimeError, MemoryError])
def test_one_lack_is_survived_with_half_as_much_at_a_time(
    spec: TrainSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    """In the second pass of a step, so that half a gradient is there already: it must not count twice."""
    plain = Training(spec, tmp_path / "1").run()
    fake_lack(monkeypatch, range(5, 6), error)
    training = Training(spec, tmp_path / "2").run()
    assert training.losses == pytest.approx(plain.losses, rel=1e-5)
    said = [one.text for one in training.of(Log) if one.level == "warning"]
    assert [one[:13] for one in said] == ["Out of memory"] and f"{BUDGET // 2} tokens instead of {BUDGET}" in said[0]
    assert training.of(Finished)


def test_a_resumed_run_keeps_to_the_smaller_passes(
    spec: TrainSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        fake_lack(patched, range(1), torch.OutOfMemoryError)
        whole = Training(spec, tmp_path / "whole").run()
    with monkeypatch.context() as patched, pytest.raises(Stopped):
        fake_lack(patched, range(1), torch.OutOfMemoryError)
        Training(spec, tmp_path / "1", stop_at=3).run()
    again = Training(spec, tmp_path / "2").run(resume=tmp_path / "1" / "checkpoints")
    assert again.losses == whole.losses[3:]


def test_a_second_lack_ends_with_a_name_and_keeps_what_was_learnt(
    spec: TrainSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = Training(spec, tmp_path)

    def starve(event: Event) -> None:
        if isinstance(event, Progress) and event.step == 2:
            fake_lack(monkeypatch, range(1_000), torch.OutOfMemoryError)

    with pytest.raises(TrainerError, match=r"ran out of memory at step 3, in passes of 128 tokens") as caught:
        training.run(emit=starve)
    assert caught.value.code == "out_of_memory" and "GB at its peak" in caught.value.text
    assert "optim.micro_batch_tokens" in caught.value.fix and "checkpoint is of step 2" in caught.value.text
    monkeypatch.undo()
    optim = dataclasses.replace(spec.optim, micro_batch_tokens=128)
    again = Training(dataclasses.replace(spec, optim=optim), tmp_path).run(resume=tmp_path / "checkpoints")
    assert len(again.losses) == 4


def test_a_full_disk_does_not_hide_the_lack(spec: TrainSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The checkpoint before the failure cannot be written; what ended the run is still told, and what is left."""

    def full(*given: Any) -> None:
        raise OSError(28, "No space left on device")

    def starve(event: Event) -> None:
        if isinstance(event, Progress) and event.step == 2:
            fake_lack(monkeypatch, range(1_000), torch.OutOfMemoryError)
            monkeypatch.setattr("trainer.checkpoint.save_file", full)

    monkeypatch.setattr("trainer.checkpoint.Checkpoints.due", lambda checkpoints, step: False)
    with pytest.raises(TrainerError, match="ran out of memory at step 3") as caught:
        Training(spec, tmp_path).run(emit=starve)
    assert caught.value.code == "out_of_memory"
    assert "; step 2 could not be saved: No space left on device" in caught.value.text


def test_other_errors_are_no_lack_of_memory(spec: TrainSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(model: AdaptedModel, *read: Any, **told: Any) -> torch.Tensor:
        raise RuntimeError("a shape is wrong")

    settings = dataclasses.replace(spec, data=dataclasses.replace(spec.data, holdout=0.0))
    monkeypatch.setattr("trainer.model._checked", lambda adapted, spec: adapted)
    monkeypatch.setattr("trainer.model.AdaptedModel.hidden", broken)
    with pytest.raises(RuntimeError, match="a shape is wrong"):
        Training(settings, tmp_path).run()


def starve_measuring(monkeypatch: pytest.MonkeyPatch, passes: range) -> None:
    """Let passes without gradients fail as an allocation does, counted from now on."""
    genuine, numbers = AdaptedModel.hidden, iter(range(1_000))

    def hidden(model: AdaptedModel, *read: Any, **told: Any) -> torch.Tensor:
        if not torch.is_grad_enabled() and next(numbers) in passes:
            raise torch.OutOfMemoryError("fake: can't allocate memory")
        return genuine(model, *read, **told)

    monkeypatch.setattr("trainer.model.AdaptedModel.hidden", hidden)


HALVED = f"up to {BUDGET // 2} tokens instead of {BUDGET}"


@pytest.mark.parametrize(("at", "then"), [(0, HALVED), (2, "once more")], ids=["held-out rows", "general text"])
def test_a_lack_while_measuring_is_survived(
    spec: TrainSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int, then: str
) -> None:
    """With half as much at a time of held-out rows; passes of general text are small, and always the same.

    Training keeps its passes, and what is measured stays the same but for rounding.
    """
    plain = Training(spec, tmp_path / "1").run()
    training = Training(spec, tmp_path / "2")

    def starve(event: Event) -> None:
        if isinstance(event, Progress) and event.step == 6:
            starve_measuring(monkeypatch, range(at, at + 1))

    training.run(emit=starve)
    assert training.losses == plain.losses
    assert training.measured[-1].loss == pytest.approx(plain.measured[-1].loss, rel=1e-5)
    assert training.measured[-1].general_kl == pytest.approx(plain.measured[-1].general_kl, rel=1e-4)
    said = [one.text for one in training.of(Log) if one.level == "warning"]
    assert len(said) == 1 and said[0].startswith("Out of memory while evaluating ")
    assert then in said[0]
    assert training.of(Finished)


def test_a_second_lack_while_measuring_ends_with_a_name_and_keeps_what_was_learnt(
    spec: TrainSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = Training(spec, tmp_path)

    def starve(event: Event) -> None:
        if isinstance(event, Progress) and event.step == 6:
            starve_measuring(monkeypatch, range(1_000))

    with pytest.raises(TrainerError, match="while evaluating at step 6, in passes of 128 tokens") as caught:
        training.run(emit=starve)
    assert caught.value.code == "out_of_memory" and "GB at its peak" in caught.value.text
    assert "checkpoint is of step 6" in caught.value.text and "optim.micro_batch_tokens" in caught.value.fix
    monkeypatch.undo()
    again = Training(spec, tmp_path).run(resume=tmp_path / "checkpoints")
    assert not again.losses and again.measured[-1].step == 6 and again.of(Finished)


def test_a_lack_while_a_probe_is_answered_is_survived(
    spec: TrainSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluation = dataclasses.replace(spec.evaluation, probes=("What is 3?",), forgetting=False)
    asked = dataclasses.replace(spec, evaluation=evaluation)
    plain = Training(asked, tmp_path / "1").run()
    genuine, numbers = PeftModelForCausalLM.generate, iter(range(100))

    def generate(self: Any, *given: Any, **named: Any) -> Any:
        if next(numbers) == 0:
            raise MemoryError
        return genuine(self, *given, **named)

    monkeypatch.setattr(PeftModelForCausalLM, "generate", generate)
    training = Training(asked, tmp_path / "2").run()
    assert [one.completion for one in training.of(Sample)] == [one.completion for one in plain.of(Sample)]
    [said] = [one.text for one in training.of(Log) if one.level == "warning"]
    assert said == "Out of memory while evaluating a probe prompt (evaluation.probes) at step 0: trying once more"


LIMITED = """
import json, resource, sys
from pathlib import Path
from trainer.events import Phase, encode
from trainer.sft import train
from trainer.spec import TrainSpec

limited = []

def emit(event):
    print(encode(0, event), flush=True)
    if event == Phase(name=sys.argv[4]) and not limited:
        limited.append(True)
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + int(sys.argv[3])
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

spec = TrainSpec.from_dict(json.loads(Path(sys.argv[1]).read_text()))
train(spec, out=Path(sys.argv[2]), resume=None, emit=emit, should_stop=lambda: False)
"""


needs_limits = pytest.mark.skipif(sys.platform != "linux", reason="needs a limit on memory that the system enforces")


def run_short_of_memory(spec: TrainSpec, folder: Path, *, room: int, phase: str) -> str:
    """What a training says that the system refuses memory from the beginning of a phase on."""
    file = folder / "spec.json"
    file.write_text(json.dumps(spec.to_dict()))
    command = [sys.executable, "-c", LIMITED, str(file), str(folder / "out"), str(room), phase]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert (folder / "out" / "adapter" / "adapter_model.safetensors").is_file()
    return found.stdout


@needs_limits
def test_a_real_lack_is_survived(base: Path, tmp_path: Path) -> None:
    """There is room for half a pass and not for a whole one: before the first of them, for later ones find the heap
    as large as that one left it."""
    optim = {"max_steps": 1, "batch_size": 1300, "micro_batch_tokens": 1 << 16}
    spec = make_spec(base, make_rows(tmp_path, count=1300), optim=optim, data={"holdout": 0.0})
    said = run_short_of_memory(spec, tmp_path, room=ROOM, phase="training")
    assert "Out of memory at step 1: continuing with passes of up to 32,768 tokens instead of 65,536" in said


@needs_limits
def test_a_real_lack_while_measuring_is_survived(base: Path, tmp_path: Path) -> None:
    """Steps are small here, and the held-out rows fill one large pass."""
    optim = {"max_steps": 2, "batch_size": 4, "micro_batch_tokens": 1 << 15}
    spec = make_spec(base, make_rows(tmp_path, count=1600), optim=optim, data={"holdout": 0.5})
    said = run_short_of_memory(spec, tmp_path, room=MEASURING_ROOM, phase="evaluating")
    assert "Out of memory while evaluating at step 0: continuing with passes of up to 16,384 tokens" in said


LACKING = """
import json, sys
from pathlib import Path
import torch
from trainer import __main__, model, ranks, run, sft

out, lacking, joined = Path(sys.argv[2]), range(*map(int, sys.argv[3:])), ranks.join_ranks()
genuine, accumulate_gradient = model.AdaptedModel.hidden, sft.accumulate_gradient
passes, budgets = iter(range(1_000)), []

def hidden(self, *read, **told):
    if joined.rank == 1 and torch.is_grad_enabled() and next(passes) in lacking:
        raise torch.OutOfMemoryError("fake: can't allocate memory")
    return genuine(self, *read, **told)

def noting(run, window):
    budgets.append(run.position.budget)
    (out / f"budgets-{joined.rank}.json").write_text(json.dumps(budgets))
    return accumulate_gradient(run, window)

model.AdaptedModel.hidden, sft.accumulate_gradient = hidden, noting
__main__.end(__main__.main(["train", sys.argv[1], "--out", sys.argv[2]]))
"""


def lack_in_second(spec: TrainSpec, out: Path, lacking: range) -> list[int]:
    """Train in two processes, of which the second lacks memory in the passes with these numbers. The exit codes."""
    file = out / "spec.json"
    file.write_text(json.dumps(spec.to_dict()))
    return in_two(LACKING, file, out, lacking.start, lacking.stop)


@pytest.fixture
def shared_spec(base: Path, rows: Path) -> TrainSpec:
    """One pass a step in each process."""
    optim = {"max_steps": 4, "micro_batch_tokens": 2048}
    return make_spec(base, rows, model={"gpus": 2}, optim=optim, data={"holdout": 0.0})


def test_all_processes_go_on_in_the_passes_of_the_one_that_lacked_memory(
    shared_spec: TrainSpec, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert lack_in_second(shared_spec, tmp_path, range(1, 2)) == [0, 0]
    budgets = [json.loads((tmp_path / f"budgets-{rank}.json").read_text()) for rank in range(2)]
    # 64 is below what one of them had in its pass: half of what may be would have been the same pass again.
    assert [sorted(set(one), reverse=True) for one in budgets] == [[2048, 64], [2048, 64]]
    assert [one[:2] for one in budgets] == [[2048, 2048], [2048, 2048]]
    assert capfd.readouterr().out.count("Out of memory at step 2: continuing with passes of up to 64 tokens") == 1


@pytest.mark.parametrize("shard", ["never", "always"])
def test_a_lack_for_good_in_one_process_leaves_the_last_whole_step(
    shared_spec: TrainSpec, tmp_path: Path, capfd: pytest.CaptureFixture[str], shard: str
) -> None:
    spec = dataclasses.replace(shared_spec, model=dataclasses.replace(shared_spec.model, shard=shard))
    assert lack_in_second(spec, tmp_path, range(2, 1_000)) == [75, 5]
    said = capfd.readouterr().out
    assert said.count('"failed"') == 1 and "ran out of memory at step 3" in said
    assert "checkpoint is of step 2" in said and said.count('"folder": "checkpoints/step-000002"') >= 1
    verify(tmp_path / "checkpoints" / "step-000002", name="MANIFEST.json")


def test_a_lack_on_general_text_of_a_sharded_base_is_not_tried_again(
    spec: TrainSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other processes are in the middle of the pass. One process stands for them here."""
    genuine = preparation.load_adapted

    def sharded(*given: Any, **told: Any) -> AdaptedModel:
        return dataclasses.replace(genuine(*given, **told), is_sharded=True)

    monkeypatch.setattr(preparation, "load_adapted", sharded)
    training = Training(spec, tmp_path)

    def starve(event: Event) -> None:
        if isinstance(event, Progress) and event.step == 6:
            starve_measuring(monkeypatch, range(2, 3))

    with pytest.raises(TrainerError, match=r"evaluating general text \(evaluation.forgetting\) at step 6") as caught:
        training.run(emit=starve)
    assert caught.value.code == "out_of_memory"
    assert not [one for one in training.of(Log) if "once more" in one.text]


@pytest.mark.parametrize("lacks", [1, 2])
def test_a_lack_before_the_first_step_is_tried_once_more_and_has_a_place(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lacks: int
) -> None:
    settings = make_spec(base, make_pairs(tmp_path), data={"method": "dpo", "holdout": 0.0}, optim={"max_steps": 1})
    training = Training(settings, tmp_path / "out")
    monkeypatch.setattr("trainer.model._checked", lambda adapted, spec: adapted)
    starve_measuring(monkeypatch, range(lacks))
    if lacks == 1:
        assert len(training.run().losses) == 1
        assert [
            one for one in training.of(Log) if "while scoring the answers, before the first step: trying" in one.text
        ]
    else:
        with pytest.raises(TrainerError, match="out of memory while scoring the answers, before the first step"):
            training.run()
