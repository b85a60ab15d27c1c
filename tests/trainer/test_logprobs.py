"""Log probabilities: those transformers gives, for the rows that ask, whatever else is in the batch."""

import math
from pathlib import Path

import pytest
import torch

from tests.trainer.adapters import load_tiny
from trainer.engine import Engine, Request
from trainer.logprobs import score_tokens

IDS = list(range(5, 25))


def test_scores_are_those_of_the_model(base: Path) -> None:
    engine = Engine(base, dtype="float32")
    asked = [
        Request(prompt_ids=IDS, max_tokens=6, top_logprobs=3, temperature=1.3, seed=4, presence_penalty=1.0),
        Request(prompt_ids=IDS[:7], max_tokens=6),
        Request(prompt_ids=IDS, max_tokens=6, top_logprobs=0),
    ]
    scored: list[list[object]] = [[], [], []]
    for chunk in engine.generate(asked, lambda: False):
        scored[chunk.row] += chunk.scored
    assert [len(one) for one in scored] == [6, 0, 6]
    model = load_tiny(base)
    ids = list(IDS)
    for one in scored[0]:
        with torch.inference_mode():
            wanted = model(input_ids=torch.tensor([ids])).logits[0, -1].log_softmax(-1)
        assert one.logprob == pytest.approx(float(wanted[one.token]), abs=1e-3)  # type: ignore[attr-defined]
        best = wanted.topk(3)
        assert [token for token, _ in one.top] == best.indices.tolist()  # type: ignore[attr-defined]
        assert [value for _, value in one.top] == pytest.approx(best.values.tolist(), abs=1e-3)  # type: ignore[attr-defined]
        ids.append(one.token)  # type: ignore[attr-defined]
    assert all(one.top == () for one in scored[2])  # type: ignore[attr-defined]


def test_more_likeliest_tokens_than_there_are() -> None:
    scores = torch.tensor([[0.0, 1.0, 2.0]])
    (found,) = score_tokens(scores, [1], [20])
    assert found is not None
    assert [token for token, _ in found.top] == [2, 1, 0]
    assert sum(math.exp(value) for _, value in found.top) == pytest.approx(1)
