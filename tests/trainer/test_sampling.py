"""Choosing tokens: greedy, from the nucleus, by each row's own random numbers, and never from scores that are none."""

import math

import pytest
import torch

from trainer.sampling import NOT_FINITE, Sampler, choose

CHANCES = torch.tensor([0.05, 0.5, 0.0, 0.3, 0.15])
SCORES = CHANCES.log()  # the token without a chance is masked with -inf, as some models do


def shares(sampler: Sampler, times: int = 4000) -> list[float]:
    """How often each token is drawn."""
    drawn = choose(SCORES.expand(times, -1), [sampler] * times)
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
    monkeypatch.setattr("trainer.sampling.NUCLEUS_TRY", first_look)
    found = shares(Sampler(temperature, top_p, seed=1))
    assert found == pytest.approx(expected, abs=0.03)
    assert [share == 0 for share in found] == [share == 0 for share in expected]


def test_a_row_draws_alike_whatever_is_beside_it() -> None:
    random = torch.Generator().manual_seed(0)
    # Coarse values, so that many are equal, as in bfloat16.
    scores = [torch.randn(3, 5000, generator=random).bfloat16() for _ in range(20)]
    beside = [Sampler(), Sampler(2.0, 1.0, seed=9)]
    one, other = Sampler(0.9, 0.7, seed=4), Sampler(0.9, 0.7, seed=4)
    alone = [choose(step[:1], [one])[0] for step in scores]
    together = [choose(step, [other, *beside]) for step in scores]
    assert [row[0] for row in together] == alone
    assert [row[1] for row in together] == [int(step[1].argmax()) for step in scores]
    again = [choose(step[:1], [sampler])[0] for sampler in [Sampler(0.9, 0.7, seed=5)] for step in scores]
    assert again != alone


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_scores_that_are_no_numbers_choose_nothing(value: float, temperature: float) -> None:
    broken = torch.full((5,), value) if value == -math.inf else SCORES.clone().index_fill(0, torch.tensor([3]), value)
    samplers = [Sampler(temperature, 0.9, seed=1) for _ in range(2)]
    sound, none = choose(torch.stack([SCORES, broken]), samplers)
    assert none == NOT_FINITE
    assert sound in range(5)
