"""Training in several processes: on a CPU they meet over gloo, and learn what one learns from the same windows."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.tiny import make_tiny_base
from tests.trainer.training import Training, make_judged, make_spec
from trainer.data import Plan, load_dataset
from trainer.events import Checkpoint, Evaluated, Event, Failed, Finished, Log, Progress, decode
from trainer.ranks import Ranks
from trainer.rendering import Renderer
from trainer.spec import TrainSpec

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}


def start(spec: TrainSpec, out: Path, *more: object) -> "subprocess.Popen[str]":
    file = out.parent / f"{out.name}.yaml"
    file.write_text(spec.to_yaml())
    command = [sys.executable, "-m", "trainer", "train", str(file), "--out", str(out), *map(str, more)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)


def finish(child: "subprocess.Popen[str]") -> tuple[int, list[Event], str]:
    said, complained = child.communicate(timeout=120)
    return child.returncode, [decode(line)[1] for line in said.splitlines()], complained


def await_progress(child: "subprocess.Popen[str]") -> Progress:
    """The first step that is reported from now on."""
    assert child.stdout
    while line := child.stdout.readline():
        event = decode(line)[1]
        if isinstance(event, Progress):
            return event
    raise AssertionError(f"it ended: {child.communicate()[1]}")


def of(kind: type[Any], told: list[Event]) -> list[Any]:
    return [one for one in told if isinstance(one, kind)]


def on_two(spec: TrainSpec) -> TrainSpec:
    values = spec.to_dict()
    return TrainSpec.from_dict({**values, "model": {**values["model"], "gpus": 2}})


@pytest.mark.parametrize("method", ["sft", "kto"])
def test_two_processes_learn_what_one_learns(base: Path, rows: Path, tmp_path: Path, method: str) -> None:
    path = {"sft": lambda _: rows, "kto": make_judged}[method](tmp_path)
    spec = make_spec(base, path, data={"method": method}, optim={"max_steps": 6})
    alone = Training(spec, tmp_path / "alone").run()
    code, told, complained = finish(start(on_two(spec), tmp_path / "two"))
    assert code == 0, complained
    assert [one.loss for one in of(Progress, told)] == pytest.approx(alone.losses, rel=1e-5)
    assert [one.accuracy for one in of(Progress, told)] == alone.accuracies
    for one, other in zip(of(Evaluated, told), alone.measured, strict=True):
        assert one.loss == pytest.approx(other.loss, rel=1e-5) and one.accuracy == other.accuracy
    assert len(of(Finished, told)) == 1
    logged = [one.text for one in of(Log, told)]
    assert len([text for text in logged if "weights learn" in text]) == 1
    assert [text for text in logged if text.endswith("on 2 times cpu")]
    mine, theirs = (load_file(tmp_path / one / "adapter" / "adapter_model.safetensors") for one in ("two", "alone"))
    for name, weight in theirs.items():
        torch.testing.assert_close(mine[name], weight, rtol=1e-3, atol=1e-5)


def test_every_row_of_a_window_is_with_one_process_and_the_work_is_even(base: Path, rows: Path) -> None:
    spec = make_spec(base, rows, optim={"batch_size": 7})
    window = Plan(load_dataset(spec, Renderer.load(base), lambda event: None).train, spec).window(0)
    for of_all in (1, 2, 3, 9):
        shares = [Ranks(rank, of_all).share(window) for rank in range(of_all)]
        assert sorted(id(row) for share in shares for row in share) == sorted(map(id, window))
    tokens = [sum(row.length for row in Ranks(rank, 2).share(window)) for rank in range(2)]
    assert abs(tokens[0] - tokens[1]) <= max(row.length for row in window)


def test_a_stop_is_agreed_on_and_gone_on_from_and_all_end_when_one_is_killed(
    base: Path, rows: Path, tmp_path: Path
) -> None:
    spec = on_two(make_spec(base, rows, optim={"max_steps": 10_000, "epochs": 1000.0}, data={"holdout": 0.0}))
    child = start(spec, tmp_path / "first")
    await_progress(child)
    child.send_signal(signal.SIGTERM)
    code, told, complained = finish(child)
    assert code == 75, complained
    stopped_at = of(Checkpoint, told)[-1].step

    child = start(spec, tmp_path / "second", "--resume", tmp_path / "first" / "checkpoints")
    assert await_progress(child).step == stopped_at + 1
    ranks = children_of(child.pid)
    assert len(ranks) == 2
    os.kill(ranks[1], signal.SIGKILL)
    code, told, _ = finish(child)
    assert code == -signal.SIGKILL and not of(Failed, told) and not of(Finished, told)
    assert not [pid for pid in ranks if is_alive(pid)]


def test_when_the_command_is_killed_none_goes_on(base: Path, rows: Path, tmp_path: Path) -> None:
    child = start(on_two(make_spec(base, rows, optim={"max_steps": 10_000, "epochs": 1000.0})), tmp_path / "out")
    await_progress(child)
    ranks = children_of(child.pid)
    child.kill()
    finish(child)
    deadline = time.monotonic() + 10
    while [pid for pid in ranks if is_alive(pid)]:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_failure_is_told_once_with_its_code(base: Path, rows: Path, tmp_path: Path) -> None:
    """Both find the same, before they meet and before they load."""
    spec = make_spec(base, rows.with_name("gone"), lora={"target_modules": ["no_such_layer"]})
    code, told, complained = finish(start(on_two(spec), tmp_path / "out"))
    assert code == 2, complained
    (failed,) = of(Failed, told)
    assert failed.code == "user_config" and "data.path: " in failed.text and "lora.target_modules: " in failed.text


def test_what_both_find_while_they_load_is_told_once(rows: Path, tmp_path: Path) -> None:
    base = make_tiny_base(tmp_path / "base")
    weights = {name: one * float("nan") for name, one in load_file(base / "model.safetensors").items()}
    save_file(weights, base / "model.safetensors", {"format": "pt"})
    code, told, complained = finish(start(on_two(make_spec(base, rows)), tmp_path / "out"))
    assert code == 2, complained
    (failed,) = of(Failed, told)
    assert "no finite numbers" in failed.text


def test_a_spec_that_cannot_be_tried_starts_no_others(base: Path, rows: Path, tmp_path: Path) -> None:
    spec = make_spec(base, rows, model={"gpus": 65}, lora={"target_modules": ["no_such_layer"]})
    code, told, complained = finish(start(spec, tmp_path / "out"))
    assert code == 2, complained
    (failed,) = of(Failed, told)
    assert "model.gpus: 65 is too high." in failed.text and "lora.target_modules: " in failed.text


def children_of(pid: int) -> list[int]:
    return sorted(int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split())


def is_alive(pid: int) -> bool:
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


def test_one_of_several_ends_before_python_is_taken_down(tmp_path: Path) -> None:
    """Else a thread of gloo that lets go of a tensor then aborts it, now and then, after all went well."""
    run = "import atexit, runpy; atexit.register(print, 'taken down'); runpy.run_module('trainer', None, '__main__')"
    for rank, seen in (({}, True), ({"RANK": "0"}, False)):
        environment = os.environ | rank
        command = [sys.executable, "-c", run, "check", str(tmp_path / "none.jsonl"), "--out", str(tmp_path)]
        found = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert found.returncode == 2, found.stderr
        assert ("taken down" in found.stdout + found.stderr) is seen
