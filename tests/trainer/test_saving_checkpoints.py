"""Writing checkpoints: when one is due, how many are kept, and nothing half written under a final name."""

import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trainer.training import Training, make_spec
from trainer.checkpoint import BYTES_A_SECOND, MANIFEST, SAVING_SHARE, Checkpoints, Inputs, Position
from trainer.errors import Stopped, TrainerError
from trainer.events import Progress
from trainer.manifest import verify, whole_folder
from trainer.optimizer import MasterAdamW
from trainer.spec import OptimSpec, TrainSpec


@pytest.mark.parametrize(
    "victim", ["trainer.checkpoint.save_file", "pathlib.Path.write_text", "trainer.manifest._sync"]
)
def test_a_failed_save_leaves_nothing(
    base: Path, rows: Path, tmp_path: Path, victim: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk fills up at any file: no folder under a final name, nothing aside."""
    checkpoints = make_checkpoints(base, rows, tmp_path)
    optimizer = MasterAdamW({"w": torch.nn.Parameter(torch.zeros(4))}, OptimSpec())

    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(victim, full)
    with pytest.raises(OSError, match="No space"):
        checkpoints.save(Position(started="2026-01-01T00:00:00", step=1), optimizer, {})
    assert not list((tmp_path / "checkpoints").iterdir())


def make_checkpoints(base: Path, rows: Path, out: Path, *, of: int = 100, size: int = 0) -> Checkpoints:
    inputs = Inputs(make_spec(base, rows), "d", "b", of)
    return Checkpoints(out / "checkpoints", inputs, lambda event: None, size=size)


def timed_run(
    base: Path, rows: Path, out: Path, monkeypatch: pytest.MonkeyPatch, *, cost: float, step: float = 1.0, size: int = 0
) -> tuple[list[int], float]:
    """The steps of a thousand after which a checkpoint is written, and the share of the time that takes."""
    clock = [1000.0]
    monkeypatch.setattr("trainer.checkpoint.time.monotonic", lambda: clock[0])
    checkpoints = make_checkpoints(base, rows, out, of=1000, size=size)

    def write(*args: Any, **kwargs: Any) -> None:
        clock[0] += cost / 2

    monkeypatch.setattr("trainer.checkpoint.save_file", write)
    optimizer = MasterAdamW({"w": torch.nn.Parameter(torch.zeros(4))}, OptimSpec())
    written = []
    for number in range(1, 1001):
        clock[0] += step
        if checkpoints.due(number):
            checkpoints.save(Position(started="2026-01-01T00:00:00", step=number), optimizer, {})
            written.append(number)
    return written, len(written) * cost / (clock[0] - 1000)


def test_the_newest_two_are_kept(base: Path, rows: Path, tmp_path: Path) -> None:
    checkpoints = make_checkpoints(base, rows, tmp_path)
    optimizer = MasterAdamW({"w": torch.nn.Parameter(torch.zeros(4))}, OptimSpec())
    for step in range(1, 5):
        checkpoints.save(Position(started="2026-01-01T00:00:00", step=step), optimizer, {})
        names = sorted(one.name for one in (tmp_path / "checkpoints").iterdir())
        assert names == [f"step-{one:06d}" for one in (step - 1, step) if one]


def test_one_is_due_every_tenth_of_the_steps(
    base: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written, _ = timed_run(base, rows, tmp_path, monkeypatch, cost=0.1)
    assert written == list(range(100, 1000, 100)), "the last step is followed by the adapter itself"


def test_one_is_due_every_five_minutes(base: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written, _ = timed_run(base, rows, tmp_path, monkeypatch, cost=0.1, step=60)
    assert len(written) > 190 and {after - before for before, after in pairwise(written)} <= {5, 6}


@pytest.mark.parametrize(("cost", "step"), [(1.0, 0.1), (5.0, 1.0), (30.0, 2.0), (30.0, 20.0)])
def test_no_more_than_two_per_cent_of_the_time_goes_into_them(
    base: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cost: float, step: float
) -> None:
    """What the first will cost is told from its size, and what the next will from the last."""
    size = int(cost * BYTES_A_SECOND)
    written, share = timed_run(base, rows, tmp_path, monkeypatch, cost=cost, step=step, size=size)
    assert written and share <= SAVING_SHARE


def test_what_was_there_stays_where_the_new_one_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "adapter"
    with whole_folder(target, name=MANIFEST, facts={}) as folder:
        (folder / "value").write_text("before")
    genuine = Path.rename

    def rename(self: Path, other: Path) -> Path:
        if other == target and (self / "value").read_text() == "after":
            raise OSError(5, "Input/output error")
        return genuine(self, other)

    with monkeypatch.context() as broken, pytest.raises(OSError, match="Input/output"):
        broken.setattr(Path, "rename", rename)
        with whole_folder(target, name=MANIFEST, facts={}) as folder:
            (folder / "value").write_text("after")
    assert [one.name for one in tmp_path.iterdir()] == ["adapter"]
    assert (target / "value").read_text() == "before" and verify(target, name=MANIFEST)


def test_a_manifest_that_names_files_elsewhere_is_damaged(tmp_path: Path) -> None:
    for listed in (
        "[]",
        '{"format": 1}',
        '{"format": 1, "files": {"../x": {"sha256": "0"}}}',
        '{"format": 9, "files": {}}',
        "[" * 100_000,
    ):
        (tmp_path / MANIFEST).write_text(listed)
        with pytest.raises(TrainerError, match="is damaged"):
            verify(tmp_path, name=MANIFEST)


def test_what_a_killed_attempt_had_begun_is_removed_before_the_first_one_is_written(tmp_path: Path) -> None:
    begun = tmp_path / "checkpoints" / ".tmp-5"
    begun.mkdir(parents=True)
    (begun / "lora.safetensors").write_bytes(b"half")
    os.utime(begun, (1e9, 1e9))
    (begun.parent / ".tmp-6").mkdir()  # as of another process of this attempt
    optimizer = MasterAdamW({"a.lora_A.weight": torch.nn.Parameter(torch.ones(4, 4))}, OptimSpec())
    checkpoints = Checkpoints(begun.parent, Inputs(TrainSpec(), "", "", 9), lambda event: None)
    assert begun.exists(), "a process that only looks removes nothing"
    checkpoints.save(Position(started="", step=3), optimizer, {})
    assert sorted(one.name for one in begun.parent.iterdir()) == [".tmp-6", "step-000003"]


def test_a_replacement_that_is_killed_half_way_is_undone(
    base: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step is saved again after its evaluation. Between two renames neither checkpoint has its name."""
    spec = make_spec(base, rows, optim={"max_steps": 6, "epochs": 10.0})
    first = Training(spec, tmp_path / "run", stop_at=3)
    with pytest.raises(Stopped):
        first.run()
    target = tmp_path / "run" / "checkpoints" / "step-000003"
    saved = {one.name: one.read_bytes() for one in target.iterdir()}

    class Killed(BaseException):
        """In place of SIGKILL, after which nothing is cleaned up."""

    genuine = Path.rename

    def rename(self: Path, other: Path) -> Path:
        if other == target:
            raise Killed
        return genuine(self, other)

    with monkeypatch.context() as broken, pytest.raises(Killed):
        broken.setattr(Path, "rename", rename)
        broken.setattr("trainer.manifest.shutil.rmtree", lambda *_, **__: None)
        with whole_folder(target, name=MANIFEST, facts={}) as folder:
            (folder / "value").write_text("after")
    assert not target.exists()
    second = Training(spec, tmp_path / "second").run(resume=tmp_path / "run")
    assert [one.step for one in second.of(Progress)] == [4, 5, 6]
    assert {one.name: one.read_bytes() for one in target.iterdir()} == saved
