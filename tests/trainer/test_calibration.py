"""What earlier jobs took corrects the estimate of the next one."""

import pytest

from tests.trainer.test_estimate import LLAMA_8B
from trainer.estimate import Hardware, ObservedPeak, calibrated, estimate
from trainer.spec import ModelSpec, TrainSpec


def test_earlier_jobs_move_the_estimate() -> None:
    plain = estimate(TrainSpec(model=ModelSpec(base="-")), LLAMA_8B, rows=100, tokens=20_000, on=Hardware("cpu"))
    taken = [ObservedPeak(predicted=100, peak=peak) for peak in (104, 110, 190)]
    moved = calibrated(plain, taken)
    assert moved.jobs == 3 and calibrated(plain, []) is plain
    assert moved.expected == pytest.approx(1.1 * plain.expected)
    assert moved.high - plain.high == pytest.approx(0.1 * plain.expected)
    weights, known = moved.items[0], plain.items[0]
    assert weights.expected < 1.02 * known.expected, "what is known hardly moves"
    absurd = calibrated(plain, [ObservedPeak(predicted=100, peak=10_000)])
    third = 1 + (2 - 1) / 3
    assert absurd.expected == pytest.approx(third * plain.expected), "one job alone does not make nonsense of it"
    small = calibrated(plain, [ObservedPeak(predicted=100, peak=80)])
    assert small.expected < plain.expected and small.high == plain.high, "nor lowers what the next may take"
