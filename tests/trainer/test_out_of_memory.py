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

from tests.trainer.training import Training, make_rows, make_spec
from trainer.errors import Stopped, TrainerError
from trainer.events import Event, Finished, Log, Progress
from trainer.model import AdaptedModel
from trainer.spec import TrainSpec

BUDGET = 256
ROOM = 100 << 20  # bytes; a pass of 32,768 tokens keeps some 300 MB, of which 100 are free in the heap already


@pytest.fixture(scope="module")
def spec(base: Path, rows: Path) -> TrainSpec:
    return make_spec(base, rows, optim={"max_steps": 6, "micro_batch_tokens": BUDGET})


def fake_lack(monkeypatch: pytest.MonkeyPatch, passes: range, error: type[Exception]) -> None:
    """Let the passes of training with these numbers fail as an allocation does."""
    genuine, numbers = AdaptedModel.hidden, iter(range(1_000))

    def hidden(model: AdaptedModel, *read: Any) -> torch.Tensor:
        if torch.is_grad_enabled() and next(numbers) in passes:
            raise error("fake: can't allocate memory")
        return genuine(model, *read)

    monkeypatch.setattr("trainer.model.AdaptedModel.hidden", hidden)


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
    assert [one[:13] for one in said] == ["Out of memory"] and f"{BUDGET // 2} tokens, instead of {BUDGET}" in said[0]
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
    assert "optim.micro_batch_tokens" in caught.value.fix and "checkpoint is that of step 2" in caught.value.text
    monkeypatch.undo()
    optim = dataclasses.replace(spec.optim, micro_batch_tokens=128)
    again = Training(dataclasses.replace(spec, optim=optim), tmp_path).run(resume=tmp_path / "checkpoints")
    assert len(again.losses) == 4


def test_other_errors_are_no_lack_of_memory(spec: TrainSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(model: AdaptedModel, *read: Any) -> torch.Tensor:
        raise RuntimeError("a shape is wrong")

    settings = dataclasses.replace(spec, data=dataclasses.replace(spec.data, holdout=0.0))
    monkeypatch.setattr("trainer.model._check_head", lambda adapted: None)
    monkeypatch.setattr("trainer.model.AdaptedModel.hidden", broken)
    with pytest.raises(RuntimeError, match="a shape is wrong"):
        Training(settings, tmp_path).run()


LIMITED = """
import json, resource, sys
from pathlib import Path
from trainer.events import Progress, encode
from trainer.sft import train
from trainer.spec import TrainSpec

def emit(event):
    print(encode(0, event), flush=True)
    if isinstance(event, Progress) and event.step == 1:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + int(sys.argv[3])
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

spec = TrainSpec.from_dict(json.loads(Path(sys.argv[1]).read_text()))
train(spec, out=Path(sys.argv[2]), resume=None, emit=emit, should_stop=lambda: False)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit on memory that the system enforces")
def test_a_real_lack_is_survived(base: Path, tmp_path: Path) -> None:
    """The system refuses memory from the second step on: there is room for half a pass and not for a whole one."""
    optim = {"max_steps": 3, "batch_size": 400, "micro_batch_tokens": 1 << 15, "epochs": 10.0}
    spec = make_spec(base, make_rows(tmp_path, count=400), optim=optim, data={"holdout": 0.0})
    file = tmp_path / "spec.json"
    file.write_text(json.dumps(spec.to_dict()))
    command = [sys.executable, "-c", LIMITED, str(file), str(tmp_path / "out"), str(ROOM)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert "Out of memory at step 2: going on in passes of up to 16,384 tokens, instead of 32,768" in found.stdout
    assert (tmp_path / "out" / "adapter" / "adapter_model.safetensors").is_file()
