"""The real command as a process: its events, its exit codes, and what signals do to it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.tiny import make_tiny_base
from tests.trainer.training import make_rows, make_spec
from trainer.__main__ import main
from trainer.checkpoint import MANIFEST
from trainer.errors import EXIT_CODES
from trainer.events import Checkpoint, Event, Failed, Finished, Log, Progress, decode
from trainer.failures import to_trainer_error
from trainer.manifest import verify
from trainer.spec import TrainSpec
from trainer.spec_commands import read_spec

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}


@pytest.fixture
def endless(tmp_path: Path) -> Path:
    """A spec file of a run that would take hours."""
    base = make_tiny_base(tmp_path / "base")
    return write_spec(tmp_path, make_spec(base, make_rows(tmp_path), optim={"epochs": 1000.0, "max_steps": 100_000}))


def write_spec(folder: Path, spec: TrainSpec) -> Path:
    path = folder / "spec.yaml"
    path.write_text(spec.to_yaml())
    return path


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "trainer", *map(str, arguments)]


def finish(*arguments: object) -> tuple[int, list[Event], str]:
    ended = subprocess.run(
        command(*arguments), capture_output=True, text=True, env=ENVIRONMENT, timeout=120, check=False
    )
    return ended.returncode, events_of(ended.stdout), ended.stderr


def events_of(text: str) -> list[Event]:
    numbered = [decode(line) for line in text.splitlines()]
    assert [number for number, _ in numbered] == list(range(1, len(numbered) + 1))
    return [event for _, event in numbered]


@contextmanager
def started(*arguments: object, **options: Any) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=ENVIRONMENT, **options
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def wait_for(process: "subprocess.Popen[str]", kind: type[Any], count: int = 1) -> Event:
    assert process.stdout is not None
    for line in process.stdout:
        event = decode(line)[1]
        count -= isinstance(event, kind)
        if not count:
            return event
    raise AssertionError(f"ended without {kind.__name__}")


def test_train_writes_events_on_stdout_and_nothing_else(tmp_path: Path) -> None:
    spec = make_spec(make_tiny_base(tmp_path / "base"), make_rows(tmp_path), model={"quantization": "nf4"})
    code, events, stderr = finish("train", write_spec(tmp_path, spec), "--out", tmp_path / "out")
    assert code == 0, stderr
    last = events[-1]
    assert isinstance(last, Finished) and last.folder == "adapter" and (tmp_path / "out" / "adapter").is_dir()


def test_sigterm_leaves_a_checkpoint_and_the_run_goes_on(endless: Path, tmp_path: Path) -> None:
    with started("train", endless, "--out", tmp_path / "one") as process:
        wait_for(process, Progress, count=3)
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGTERM)  # impatience changes nothing
        rest = process.communicate(timeout=30)[0].splitlines()
        assert process.returncode == EXIT_CODES["stopped"] == 75
    stopping, last = (decode(line)[1] for line in rest[-2:])
    assert isinstance(last, Checkpoint)
    assert isinstance(stopping, Log) and stopping.text == f"Stopping by request after step {last.step} of 6,000"
    verify(tmp_path / "one" / last.folder, name=MANIFEST)
    with started("train", endless, "--out", tmp_path / "two", "--resume", tmp_path / "one" / last.folder) as process:
        event = wait_for(process, Progress)
        assert isinstance(event, Progress) and event.step == last.step + 1


def test_kill_leaves_no_half_checkpoint(tmp_path: Path) -> None:
    """Killed in the thick of saving, again and again: whatever bears a final name is whole."""
    base = make_tiny_base(tmp_path / "base")
    optim = {"epochs": 1000.0, "max_steps": 300}  # a checkpoint is due as soon as it is no great share of the time
    spec = make_spec(base, make_rows(tmp_path), lora={"r": 64}, optim=optim, data={"holdout": 0.0})
    path = write_spec(tmp_path, spec)
    for round_number in range(2):
        out = tmp_path / str(round_number)
        with started("train", path, "--out", out) as process:
            wait_for(process, Checkpoint)
            time.sleep(0.01 * round_number)
            process.kill()
        found = list((out / "checkpoints").glob("step-*"))
        assert found
        for folder in found:
            verify(folder, name=MANIFEST)


def test_an_orphan_does_not_live_on(endless: Path, tmp_path: Path) -> None:
    """The parent is killed; the trainer, which would hold the GPU, goes with it."""
    script = (
        "import subprocess, sys\n"
        "child = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)\n"
        "print(child.pid, flush=True)\nchild.wait()\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script, *command("train", endless, "--out", tmp_path / "out")],
        stdout=subprocess.PIPE,
        text=True,
        env={**ENVIRONMENT, "LOWRANK_DIE_WITH_PARENT": "1"},
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    time.sleep(1.0)
    assert Path(f"/proc/{child}").exists()
    parent.kill()
    parent.wait()
    for _ in range(50):
        if not is_alive(child):
            return
        time.sleep(0.1)
    raise AssertionError("the trainer outlived its parent")


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_check_loads_no_torch(tmp_path: Path) -> None:
    """Nor what it has no use for besides: it runs often."""
    make_rows(tmp_path)
    code = (
        "import sys; from trainer.__main__ import main; "
        f"code = main(['check', {str(tmp_path / 'rows.jsonl')!r}, '--out', {str(tmp_path)!r}]); "
        "sys.exit(99 if {'torch', 'yaml', 'trainer.spec'} & sys.modules.keys() else code)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert ended.returncode == 0, ended.stderr
    assert isinstance(events_of(ended.stdout)[-1], Finished)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("model: {base: x", "Not valid YAML"),
        ("lora: {rank: 4}", "lora.rank: There is no such value"),
        ("lora: {r: 0}\nmodel: {base: x}\ndata: {path: y}", "lora.r: 0 is too low."),
    ],
)
def test_a_bad_spec_ends_with_two(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "spec.yaml").write_text(text)
    code, events, _ = finish("train", tmp_path / "spec.yaml", "--out", tmp_path / "out")
    failed = events[-1]
    assert code == 2 and isinstance(failed, Failed) and failed.code == "user_config"
    assert said in failed.text and failed.fix


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (MemoryError(), "out_of_memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), "out_of_memory"),
        (type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory"), "out_of_memory"),
        (OSError(12, "Cannot allocate memory"), "out_of_memory"),
        (OSError(28, "No space left on device"), "disk_full"),
        (OSError(122, "Disk quota exceeded"), "disk_full"),
        (RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"), "disk_full"),
        (ZeroDivisionError("secret"), "internal"),
    ],
)
def test_any_error_gets_a_name(error: Exception, code: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = to_trainer_error(error)
    assert found.code == code and found.fix and "secret" not in found.text
    assert ("secret" in capsys.readouterr().err) == (code == "internal")


def test_a_full_disk_is_that_of_the_copy_not_of_its_source(tmp_path: Path) -> None:
    error = OSError(28, "No space left on device", str(tmp_path / "source"), None, str(tmp_path / "copy"))
    assert str(tmp_path / "copy") in to_trainer_error(error).text


def test_help_tells_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["-h"], ["train", "-h"], ["check", "-h"], ["fetch", "-h"]):
        with pytest.raises(SystemExit):
            main(arguments)
        text = " ".join(capsys.readouterr().out.split())
        assert "75 stopped" in text and "5 out_of_memory" in text


def test_help_lists_what_a_spec_may_say(capsys: pytest.CaptureFixture[str]) -> None:
    for command_name in ("train", "estimate"):
        with pytest.raises(SystemExit):
            main([command_name, "--help"])
        told = capsys.readouterr().out
        assert "\nlora:\n  r: 16\n" in told and "Rank of the update" in told and "75 stopped" in told


def test_the_spec_may_be_json(tmp_path: Path) -> None:
    spec = make_spec(tmp_path, tmp_path, optim={"max_steps": 1})
    (tmp_path / "spec.json").write_text(json.dumps(spec.to_dict()))
    assert read_spec(tmp_path / "spec.json") == spec


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    code, events, stderr = finish("check", tmp_path / "file", "--out", tmp_path / "file" / "x")
    said = events[-1]
    assert isinstance(said, Failed) and (code, stderr) == (EXIT_CODES["user_config"], "")
    assert said.text.startswith("No folder can be made at ") and said.text.endswith("/file/x: Not a directory.")


def test_a_base_that_is_neither_a_folder_nor_an_id_is_both_named(tmp_path: Path) -> None:
    spec = write_spec(tmp_path, make_spec(Path("smollm2"), make_rows(tmp_path)))
    code, events, _ = finish("train", spec, "--out", tmp_path / "out")
    said = events[-1]
    assert isinstance(said, Failed) and code == EXIT_CODES["user_config"]
    assert said.text == "model.base: There is no folder smollm2 here, and it is not a hub id."


def test_a_run_in_a_place_without_folders_is_named(base: Path, rows: Path, tmp_path: Path) -> None:
    """/proc can be written to by its permissions, and has no room for a folder."""
    spec = tmp_path / "spec.json"
    spec.write_text(json.dumps(make_spec(base, rows).to_dict()))
    code, events, stderr = finish("train", spec, "--out", Path("/proc/run"))
    said = events[-1]
    assert isinstance(said, Failed) and (code, stderr) == (EXIT_CODES["user_config"], "")
    assert said.text.startswith("--out: No folder can be made at /proc/run")
