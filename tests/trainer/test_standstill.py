"""A run that no longer learns, because its gradient is nothing at all, says so once."""

from pathlib import Path

from tests.trainer.training import Training, make_spec
from trainer.events import Log, Progress
from trainer.sft import STALLED_STEPS


def warnings_of(training: Training) -> list[str]:
    return [one.text for one in training.of(Log) if one.level == "warning" and "gradient" in one.text]


def test_a_run_that_stands_still_says_so_once(base: Path, rows: Path, tmp_path: Path) -> None:
    """Of a rate and strength beyond all measure the scores run so far apart that nothing is left to learn from."""
    optim = {"learning_rate": 1.0, "max_grad_norm": 0.0, "max_steps": 30, "epochs": 100.0, "schedule": "constant"}
    spec = make_spec(base, rows, lora={"r": 1, "lora_alpha": 4096.0}, optim=optim, evaluation={"every_steps": 1})
    training = Training(spec, tmp_path).run()
    steps = training.of(Progress)
    first = 1 + max(one.step for one in steps if one.grad_norm)
    assert 30 - first > STALLED_STEPS, "it did come to a standstill"
    (said,) = warnings_of(training)
    assert f"exactly 0 since step {first}, " in said and "optim.learning_rate" in said
    told_at = training.events.index(next(one for one in training.of(Log) if one.text == said))
    assert [one for one in training.events[:told_at] if isinstance(one, Progress)][-1].step == first + STALLED_STEPS - 1


def test_a_run_that_learns_says_nothing(base: Path, rows: Path, tmp_path: Path) -> None:
    training = Training(make_spec(base, rows, optim={"max_steps": 12, "epochs": 10.0}), tmp_path).run()
    assert len(training.losses) == 12 and not warnings_of(training)
