"""Training in several processes: on a CPU they meet over gloo, and learn what one learns from the same windows."""

import os
import random
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.tiny import make_tiny_base
from tests.trainer.training import Training, make_judged, make_spec
from trainer import launch
from trainer.data import Plan, load_dataset
from trainer.errors import TrainerError
from trainer.events import Checkpoint, Evaluated, Event, Failed, Finished, Log, Progress, decode
from trainer.failures import MAY_REPORT, is_lost_peer
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


def in_two(code: str, *arguments: object) -> list[int]:
    """Run a script in two processes that meet."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(probe.getsockname()[1]), "WORLD_SIZE": "2"}
    may_tell = launch._report_token()
    meeting |= {MAY_REPORT: str(may_tell)}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    children = [
        subprocess.Popen(
            command,
            env={**ENVIRONMENT, **meeting, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            pass_fds=[may_tell],
        )
        for rank in range(2)
    ]
    os.close(may_tell)
    return [child.wait(timeout=120) for child in children]


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
    assert len([text for text in logged if "trainable parameters" in text]) == 1
    assert [text for text in logged if text.endswith("on 2 × cpu")]
    mine, theirs = (load_file(tmp_path / one / "adapter" / "adapter_model.safetensors") for one in ("two", "alone"))
    for name, weight in theirs.items():
        torch.testing.assert_close(mine[name], weight, rtol=1e-3, atol=1e-5)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_they_listen_on_the_loopback_interface_alone(base: Path, rows: Path, tmp_path: Path) -> None:
    child = start(on_two(make_spec(base, rows, optim={"max_steps": 200, "epochs": 100.0})), tmp_path / "out")
    await_progress(child)
    pids = [child.pid, *map(int, Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split())]
    held = {str(file.readlink()) for pid in pids for file in Path(f"/proc/{pid}/fd").iterdir() if file.is_symlink()}
    tables = [Path(f"/proc/{child.pid}/net/{kind}").read_text() for kind in ("tcp", "tcp6")]
    sockets = [line.split() for table in tables for line in table.splitlines()]
    listening = [one[1].rpartition(":")[0] for one in sockets if one[3] == "0A" and f"socket:[{one[9]}]" in held]
    child.kill()
    finish(child)
    assert listening and set(listening) == {"0100007F"}


def test_every_row_of_a_window_is_with_one_process_and_the_work_is_even(base: Path, rows: Path) -> None:
    spec = make_spec(base, rows, optim={"batch_size": 7})
    window = Plan(load_dataset(spec, Renderer.load(base), lambda event: None).train, spec).window(0)
    for of_all in (1, 2, 3, 9):
        shares = [Ranks(rank, of_all).share(window) for rank in range(of_all)]
        assert sorted(id(row) for share in shares for row in share) == sorted(map(id, window))


@dataclass(frozen=True)
class Line:
    """A row of which only the length counts."""

    length: int


@pytest.mark.parametrize(("of_all", "spread"), [(2, 1.01), (3, 1.02), (8, 1.1)])
def test_no_process_has_more_to_do_than_the_others(of_all: int, spread: float) -> None:
    draw = random.Random(1)
    for _ in range(20):
        window = [Line(draw.randint(10, 500)) for _ in range(64)]
        tokens = [sum(row.length for row in Ranks(rank, of_all).share(window)) for rank in range(of_all)]
        assert max(tokens) < spread * min(tokens)


ENDINGS = """#!/bin/sh
case "$RANK" in 0) {} ;; 1) {} ;; esac
"""


@pytest.mark.parametrize(
    ("first", "second", "code"),
    [
        ("exit 0", "exit 75", 0),
        ("exit 75", "exit 5", 5),
        ("exec sleep 60", "exit 5", 5),
        ("exit 0", "exec sleep 60", 0),
        ("exit 75", "exit 75", None),
        ("exec sleep 60", "exit 75", None),
    ],
)
def test_an_end_that_nobody_wished_has_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str, second: str, code: int | None
) -> None:
    """Where all ended quietly, each for want of another, the queue must not take it for a stop and begin again."""
    program = tmp_path / "program"
    program.write_text(ENDINGS.format(first, second))
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.setattr(launch, "GRACE_SECONDS", 0.5)
    monkeypatch.setattr(launch, "LONG_GRACE_SECONDS", 0.5)
    monkeypatch.setattr(launch, "_forward_signals", lambda children: [])
    if code is not None:
        assert launch.launch(2, [], stdout=1, should_stop=lambda: False) == code
        return
    with pytest.raises(TrainerError, match="lost contact") as caught:
        launch.launch(2, [], stdout=1, should_stop=lambda: False)
    assert caught.value.code == "internal"


@pytest.mark.parametrize(
    ("text", "is_lost"),
    [
        ("[pair.cc:534] Connection closed by peer [127.0.0.1]:1", True),
        ("NCCL error in: x.cpp:1, remote process exited or there was a network error", True),
        ("NCCL error in: x.cpp:1, invalid usage (run with NCCL_DEBUG=WARN for details)", False),
        ("Gloo: unsupported data type", False),
    ],
)
def test_only_a_lost_peer_is_no_failure_of_ones_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], text: str, is_lost: bool
) -> None:
    monkeypatch.setenv("RANK", "1")
    assert is_lost_peer(RuntimeError(text)) is is_lost
    assert (text in capsys.readouterr().err) is is_lost


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


SIGNALLED = """
import os, signal, subprocess, sys
from trainer import __main__, launch, spec_commands

at = sys.argv[1]
genuine, started = spec_commands.read_spec, subprocess.Popen

def read_spec(*given, **named):
    if at == "before":
        os.kill(os.getpid(), signal.SIGTERM)
    return genuine(*given, **named)

def start(*given, **named):
    child = started(*given, **named)
    if at == "amid" and named["env"]["RANK"] == "0":
        os.kill(os.getpid(), signal.SIGTERM)
    return child

spec_commands.read_spec, launch.subprocess.Popen = read_spec, start
__main__.end(__main__.main(sys.argv[2:]))
"""


@pytest.mark.parametrize("at", ["before", "amid"])
def test_a_wish_that_comes_while_they_are_started_is_not_lost(base: Path, rows: Path, tmp_path: Path, at: str) -> None:
    file = tmp_path / "spec.yaml"
    file.write_text(on_two(make_spec(base, rows, optim={"max_steps": 6})).to_yaml())
    command = [sys.executable, "-c", SIGNALLED, at, "train", str(file), "--out", str(tmp_path / "out")]
    found = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=False, timeout=120)
    assert found.returncode == 75, found.stderr
    assert '"progress"' not in found.stdout and '"failed"' not in found.stdout


def test_when_the_command_is_killed_none_goes_on(base: Path, rows: Path, tmp_path: Path) -> None:
    child = start(on_two(make_spec(base, rows, optim={"max_steps": 10_000, "epochs": 1000.0})), tmp_path / "out")
    await_progress(child)
    ranks = children_of(child.pid)
    assert b"\0GLOO_SOCKET_IFNAME=lo\0" in Path(f"/proc/{ranks[0]}/environ").read_bytes()
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
    assert "not finite" in failed.text


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


DIVERGING = """
import sys
from trainer import __main__, optimizer

genuine, norms = optimizer.MasterAdamW.grad_norm, iter(range(1_000))
optimizer.MasterAdamW.grad_norm = lambda self: genuine(self) if next(norms) < 2 else float("inf")
__main__.end(__main__.main(["train", sys.argv[1], "--out", sys.argv[2]]))
"""


def test_of_a_divergence_the_first_one_tells(
    base: Path, rows: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """It knows the last valid checkpoint."""
    file = tmp_path / "spec.yaml"
    file.write_text(on_two(make_spec(base, rows, data={"holdout": 0.0})).to_yaml())
    assert in_two(DIVERGING, file, tmp_path) == [6, 75]
    said = capfd.readouterr().out
    assert said.count('"failed"') == 1 and "the last valid checkpoint is of step 2" in said


WISHING = """
import sys
from trainer import __main__, ranks, spec_commands

joined = ranks.join_ranks()
spec_commands.StopRequest = lambda: lambda: joined.rank == 1
__main__.end(__main__.main(["train", sys.argv[1], "--out", sys.argv[2]]))
"""


def test_a_wish_that_one_hears_before_the_first_step_ends_all(
    base: Path, rows: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "spec.yaml"
    file.write_text(on_two(make_spec(base, rows)).to_yaml())
    assert in_two(WISHING, file, tmp_path) == [75, 75]
    assert "lost another" not in capfd.readouterr().err


UNLIKE = """
import sys
from pathlib import Path
import torch
from trainer import preparation
from trainer.lora_start import lora_layers
from trainer.ranks import join_ranks, leave_ranks
from trainer.spec import TrainSpec

joined, genuine = join_ranks(), preparation.load_adapted

def weights(model):
    bases = [one.module.get_base_layer().weight.data for one in lora_layers(model.peft)]
    return [one.data for one in model.lora.values()] + list(model.initial.values()) + bases

def load_adapted(*given, **named):
    model = genuine(*given, **named)
    for one in weights(model):
        one.mul_(1 + joined.rank / 1000)
    return model

preparation.load_adapted = load_adapted
spec, out = TrainSpec.from_yaml(Path(sys.argv[1]).read_text(), name="spec"), Path(sys.argv[2])
asked = dict(emit=lambda event: None, should_stop=lambda: False, ranks=joined)
made = preparation.prepare(spec, out=out, resume=None, **asked)
torch.save((made.position.started, made.optimizer.masters_on_cpu(), weights(made.model)), out / f"{joined.rank}.pt")
leave_ranks(joined)
"""


def test_all_start_with_the_weights_and_the_date_of_the_first(base: Path, rows: Path, tmp_path: Path) -> None:
    """Unlike cards take a weight apart (PiSSA) a bit differently."""
    file = tmp_path / "spec.yaml"
    file.write_text(on_two(make_spec(base, rows, lora={"init_lora_weights": "pissa"})).to_yaml())
    assert in_two(UNLIKE, file, tmp_path) == [0, 0]
    (started, masters, weights), other = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert started == other[0]
    assert all(torch.equal(one, other[1][name]) for name, one in masters.items())
    assert len(weights) > 3 * len(masters) // 2 and all(map(torch.equal, weights, other[2]))
