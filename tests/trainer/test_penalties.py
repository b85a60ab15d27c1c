"""Penalties and biases: by the book, for the rows that ask, and wherever a row moves between batches."""

from pathlib import Path

import pytest
import torch

from trainer.engine import Engine, Request
from trainer.errors import TrainerError
from trainer.penalties import Penalties, PenaltyParams, TokenCounts

IDS = list(range(5, 25))
CPU = torch.device("cpu")


def test_each_wish_changes_its_own_row_alone() -> None:
    rows = [
        None,
        TokenCounts(PenaltyParams(presence=0.5, frequency=0.25), prompt_ids=[0]),
        TokenCounts(PenaltyParams(repetition=2.0), prompt_ids=[0, 3]),
        TokenCounts(PenaltyParams(bias={1: 5.0, 2: -100.0}), prompt_ids=[0]),
    ]
    scores = torch.tensor([1.0, 2.0, -1.0, -2.0]).repeat(4, 1)
    penalties = Penalties(rows, vocabulary=4, device=CPU)
    for chosen in ([1, 2, 1, 0], [0, 2, 1, 0]):
        penalties.count(torch.tensor(chosen))
    assert penalties.apply(scores).tolist() == [
        [1.0, 2.0, -1.0, -2.0],
        [1.0, 2.0, -2.0, -2.0],  # said twice: 0.5 + 2 * 0.25
        [0.5, 1.0, -1.0, -4.0],
        [1.0, 7.0, -101.0, -2.0],
    ]
    kept = Penalties([rows[1]], vocabulary=4, device=CPU)  # the others have left
    assert kept.apply(scores[:1]).tolist() == [[1.0, 2.0, -2.0, -2.0]]


@pytest.fixture(scope="module")
def engine(base: Path) -> Engine:
    return Engine(base, dtype="float32")


def tokens_of(engine: Engine, *requests: Request) -> list[list[int]]:
    found: list[list[int]] = [[] for _ in requests]
    for chunk in engine.generate(requests, lambda: False):
        found[chunk.row] += [one.token for one in chunk.scored]
    return found


def ask(**wishes: object) -> Request:
    return Request(prompt_ids=IDS, max_tokens=12, top_logprobs=0, **wishes)  # type: ignore[arg-type]


def test_a_great_presence_penalty_says_nothing_twice(engine: Engine) -> None:
    plain, penalised = tokens_of(engine, ask(), ask(presence_penalty=1000.0))
    assert len(set(penalised)) == len(penalised)
    assert len(set(plain)) < len(plain)
    assert tokens_of(engine, ask())[0] == plain


def test_bias_bans_and_forces(engine: Engine) -> None:
    plain = tokens_of(engine, ask())[0]
    banned, forced = tokens_of(engine, ask(logit_bias={plain[0]: -100.0}), ask(logit_bias={9: 100.0}))
    assert plain[0] not in banned
    assert set(forced) == {9}


@pytest.mark.parametrize("wishes", [{"logit_bias": {10**6: 1.0}}, {"repetition_penalty": 0.0}], ids=str)
def test_what_no_model_can_do_is_refused(engine: Engine, wishes: dict[str, object]) -> None:
    with pytest.raises(TrainerError):
        tokens_of(engine, ask(**wishes))
