"""The real command, killed with SIGKILL and gone on from: the run that nobody disturbed, to the last bit."""

import signal
from pathlib import Path

import pytest

from tests.trainer.test_train_command import events_of, finish, started, write_spec
from tests.trainer.training import make_spec
from trainer.adapter_format import WEIGHTS
from trainer.events import Checkpoint, Evaluated, Event, Progress, decode

STEPS = 60  # a checkpoint is due after each tenth of them, once 50 times what it costs has gone by


@pytest.fixture(scope="module")
def spec_file(base: Path, rows: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Epochs of six windows, the last one short; dropout, warm-up, measurements within the run, a best checkpoint."""
    optim = {"epochs": 100.0, "max_steps": STEPS, "warmup_ratio": 0.2}
    spec = make_spec(base, rows, lora={"lora_dropout": 0.1}, optim=optim, evaluation={"every_steps": 7})
    return write_spec(tmp_path_factory.mktemp("spec"), spec)


@pytest.fixture(scope="module")
def whole(spec_file: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Event]]:
    out = tmp_path_factory.mktemp("whole")
    code, events, stderr = finish("train", spec_file, "--out", out)
    assert code == 0, stderr
    return out, events


def killed_at(step: int, spec_file: Path, out: Path) -> list[Event]:
    """What a run told that is killed as soon as a step from `step` on is seen, and a checkpoint before it."""
    lines: list[str] = []
    with started("train", spec_file, "--out", out) as process:
        assert process.stdout is not None
        has_checkpoint = False
        for line in process.stdout:
            lines.append(line)
            event = decode(line)[1]
            has_checkpoint |= isinstance(event, Checkpoint)
            if has_checkpoint and isinstance(event, Progress) and event.step >= step:
                process.send_signal(signal.SIGKILL)
                break
        lines += process.stdout  # what was on its way
        assert process.wait() == -signal.SIGKILL
    return events_of("".join(line for line in lines if line.endswith("\n")))


def by_step(events: list[Event]) -> dict[int, tuple[float, ...]]:
    """All of a step that must not differ: its loss, accuracy, learning rate and gradient."""
    steps = [one for one in events if isinstance(one, Progress)]
    told = {one.step: (one.loss, one.accuracy or 0.0, one.learning_rate, one.grad_norm) for one in steps}
    assert len(told) == len(steps), "a step was made twice"
    return told


def measured(events: list[Event]) -> dict[int, Evaluated]:
    return {one.step: one for one in events if isinstance(one, Evaluated)}


@pytest.mark.parametrize("step", [8, 31])
def test_killed_and_gone_on_from_it_is_the_same_run(
    spec_file: Path, whole: tuple[Path, list[Event]], tmp_path: Path, step: int
) -> None:
    before = killed_at(step, spec_file, tmp_path / "killed")
    code, after, stderr = finish("train", spec_file, "--out", tmp_path / "again", "--resume", tmp_path / "killed")
    assert code == 0, stderr
    out, events = whole
    wanted, first, second = by_step(events), by_step(before), by_step(after)
    begun, ended = min(second), max(first)
    assert 1 < begun <= ended + 1 < STEPS, "it was killed on the way, and went on from a checkpoint"
    assert list(second) == list(range(begun, STEPS + 1)) and list(wanted) == list(range(1, STEPS + 1))
    assert first == {one: wanted[one] for one in range(1, ended + 1)}
    assert second == {one: wanted[one] for one in range(begun, STEPS + 1)}
    assert measured(before) | measured(after) == measured(events)
    ours, theirs = ((folder / "adapter" / WEIGHTS).read_bytes() for folder in (tmp_path / "again", out))
    assert ours == theirs
