"""Choosing tokens: greedy, from the nucleus, by each row's own random numbers, and never from scores that are none."""

import math

import pytest
import torch

from trainer.errors import TrainerError
from trainer.sampling import NOT_FINITE, Sampler, choose_tokens

CHANCES = torch.tensor([0.05, 0.5, 0.0, 0.3, 0.15])
SCORES = CHANCES.log()  # the token without a chance is masked with -inf, as some models do


def shares(sampler: Sampler, times: int = 4000) -> list[float]:
    """How often each token is drawn."""
    drawn = choose_tokens(SCORES.expand(times, -1), [sampler] * times)
    return [drawn.count(token) / times for token in range(len(CHANCES))]


@pytest.mark.parametrize(
    ("temperature", "top_p", "expected"),
    [
        (1.0, 1.0, [0.05, 0.5, 0.0, 0.3, 0.15]),
        (1.0, 0.81, [0.0, 0.526, 0.0, 0.316, 0.158]),
        (1.0, 0.79, [0.0, 0.625, 0.0, 0.375, 0.0]),
        (1.0, 0.4, [0.0, 1.0, 0.0, 0.0, 0.0]),
        (0.5, 1.0, [0.0068, 0.685, 0.0, 0.2466, 0.0616]),
        (1e-30, 1.0, [0.0, 1.0, 0.0, 0.0, 0.0]),
        (1.0, 1e-60, [0.0, 1.0, 0.0, 0.0, 0.0]),
    ],
)
@pytest.mark.parametrize("first_look", [2, 1024], ids=["sorts all", "looks at some"])
def test_tokens_are_drawn_by_their_chances(
    temperature: float, top_p: float, expected: list[float], first_look: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.sampling.NUCLEUS_CANDIDATES", first_look)
    found = shares(Sampler(temperature, top_p, seed=1))
    assert found == pytest.approx(expected, abs=0.03)
    assert [share == 0 for share in found] == [share == 0 for share in expected]


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"top_k": 0}, [0.05, 0.5, 0.0, 0.3, 0.15]),
        ({"top_k": 1}, [0.0, 1.0, 0.0, 0.0, 0.0]),
        ({"top_k": 2}, [0.0, 0.625, 0.0, 0.375, 0.0]),
        ({"top_k": 99}, [0.05, 0.5, 0.0, 0.3, 0.15]),
        ({"min_p": 0.2}, [0.0, 0.526, 0.0, 0.316, 0.158]),
        ({"min_p": 0.5}, [0.0, 0.625, 0.0, 0.375, 0.0]),
        ({"min_p": 1.0}, [0.0, 1.0, 0.0, 0.0, 0.0]),
        ({"top_k": 3, "min_p": 0.5}, [0.0, 0.625, 0.0, 0.375, 0.0]),
        ({"top_k": 3, "top_p": 0.6}, [0.0, 0.625, 0.0, 0.375, 0.0]),
    ],
    ids=str,
)
def test_top_k_and_min_p_leave_the_likely_ones(limits: dict[str, float], expected: list[float]) -> None:
    found = shares(Sampler(1.0, seed=1, **limits))  # type: ignore[arg-type]
    assert found == pytest.approx(expected, abs=0.03)
    assert [share == 0 for share in found] == [share == 0 for share in expected]


def test_limits_of_one_row_leave_the_others_alone() -> None:
    beside = [Sampler(1.0, seed=1, top_k=1), Sampler(1.0, seed=2, min_p=1.0), Sampler(1.0, seed=3)]
    drawn = [choose_tokens(SCORES.expand(3, -1), beside) for _ in range(60)]
    assert {row[0] for row in drawn} == {row[1] for row in drawn} == {1}
    assert {row[2] for row in drawn} == {0, 1, 3, 4}


def test_tokens_as_likely_as_the_last_of_top_k_stay() -> None:
    even = torch.zeros(1, 4)
    assert {choose_tokens(even, [sampler])[0] for sampler in [Sampler(1.0, seed=1, top_k=2)] for _ in range(60)} == {
        0,
        1,
        2,
        3,
    }


@pytest.mark.parametrize("limits", [{"top_k": -1}, {"min_p": -0.1}, {"min_p": 1.1}], ids=str)
def test_limits_out_of_range_are_refused(limits: dict[str, float]) -> None:
    with pytest.raises(TrainerError, match="out of range"):
        Sampler(1.0, **limits)  # type: ignore[arg-type]


def test_a_row_draws_alike_whatever_is_beside_it() -> None:
    random = torch.Generator().manual_seed(0)
    # Coarse values, so that many are equal, as in bfloat16.
    scores = [torch.randn(3, 5000, generator=random).bfloat16() for _ in range(20)]
    beside = [Sampler(), Sampler(2.0, 1.0, seed=9)]
    one, other = Sampler(0.9, 0.7, seed=4), Sampler(0.9, 0.7, seed=4)
    alone = [choose_tokens(step[:1], [one])[0] for step in scores]
    together = [choose_tokens(step, [other, *beside]) for step in scores]
    assert [row[0] for row in together] == alone
    assert [row[1] for row in together] == [int(step[1].argmax()) for step in scores]
    again = [choose_tokens(step[:1], [sampler])[0] for sampler in [Sampler(0.9, 0.7, seed=5)] for step in scores]
    assert again != alone


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_scores_that_are_no_numbers_choose_nothing(value: float, temperature: float) -> None:
    broken = torch.full((5,), value) if value == -math.inf else SCORES.clone().index_fill(0, torch.tensor([3]), value)
    samplers = [Sampler(temperature, 0.9, seed=1) for _ in range(2)]
    sound, none = choose_tokens(torch.stack([SCORES, broken]), samplers)
    assert none == NOT_FINITE
    assert sound in range(5)
