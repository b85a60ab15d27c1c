"""A mixed batch of eight over several adapters: exactly the single answers in float32, near ties apart in bfloat16."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.trainer.adapters import make_adapter
from trainer.batch import Batch
from trainer.engine import Engine, Request
from trainer.spec import Dtype

TOKENS = 20
LENGTHS = (30, 7, 16, 45, 11, 60, 5, 22)
KEYS = (None, "a", "b", "c")
NO_END = {token: -1e4 for token in range(3)}  # an answer that ends early proves little


@pytest.fixture(scope="module")
def adapters(base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("adapters")
    return {key: make_adapter(base, folder / key, seed=at, r=4 * (at + 1)) for at, key in enumerate("abc")}


def load(base: Path, adapters: dict[str, Path], dtype: Dtype) -> Engine:
    engine = Engine(base, dtype=dtype)
    for key, folder in adapters.items():
        engine.load_adapter(key, folder)
    return engine


def asked() -> list[Request]:
    random = torch.Generator().manual_seed(1)
    prompts = [torch.randint(3, 300, (length,), generator=random).tolist() for length in LENGTHS]
    return [
        Request(prompt_ids=prompt, adapter=KEYS[at % 4], max_tokens=TOKENS, logit_bias=NO_END)
        for at, prompt in enumerate(prompts)
    ]


def answered(engine: Engine, requests: list[Request]) -> tuple[list[str], Tensor]:
    """The texts, and the scores of each row and step, (rows, steps, vocabulary)."""
    seen: list[Tensor] = []
    texts = [""] * len(requests)
    forward = Batch._forward

    def noting(self: Batch, ids: Tensor) -> Tensor:
        scores = forward(self, ids)
        seen.append(scores.float().clone())
        return scores

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Batch, "_forward", noting)
        for chunk in engine.generate(requests, lambda: False):
            texts[chunk.row] += chunk.text
    return texts, torch.stack(seen, dim=1)


def both_ways(engine: Engine) -> tuple[list[str], Tensor, list[str], Tensor]:
    """Texts and scores of all in one batch, and of each alone."""
    texts, scores = answered(engine, asked())
    each = [answered(engine, [one]) for one in asked()]
    return texts, scores, [one[0] for one, _ in each], torch.cat([found for _, found in each])


def test_in_float32_a_mixed_batch_of_eight_is_what_each_is_alone(base: Path, adapters: dict[str, Path]) -> None:
    engine = load(base, adapters, "float32")
    texts, scores, texts_alone, alone = both_ways(engine)
    assert scores.shape[:2] == (8, TOKENS)
    torch.testing.assert_close(scores, alone, atol=1e-4, rtol=0)
    assert texts == texts_alone
    same_prompt = [Request(prompt_ids=asked()[0].prompt_ids, adapter=key, max_tokens=TOKENS) for key in KEYS]
    others = answered(engine, same_prompt)[1][:, 0]
    assert min((others[one] - others[two]).abs().max() for one in range(4) for two in range(one)) > 0.5, (
        "another adapter would be seen: its scores differ by far more"
    )


def test_in_bfloat16_texts_differ_only_where_two_tokens_are_nearly_tied(base: Path, adapters: dict[str, Path]) -> None:
    """Sums in another order round differently, by no more than what bfloat16 is off anyway."""
    engine = load(base, adapters, "bfloat16")
    texts, scores, texts_alone, alone = both_ways(engine)
    exact = answered(load(base, adapters, "float32"), asked())[1]
    error = (alone - exact)[:, 0].abs().max()  # of the first token: later ones may follow another text
    assert (scores - exact)[:, 0].abs().max() < 2 * error < 0.5, "too little to be another adapter's"
    for row in range(8):
        ways = [(one[row] + bias_of(one[row])).argmax(dim=-1) for one in (scores, alone)]
        parted = (ways[0] != ways[1]).nonzero()
        until = int(parted[0]) if len(parted) else TOKENS - 1
        difference = (scores[row, : until + 1] - alone[row, : until + 1]).abs().max()
        assert difference < 2 * error, "as long as they say the same, the scores are the same but for rounding"
        if len(parted):
            best, second = (alone[row, until] + bias_of(alone[row, until])).topk(2).values
            assert best - second <= 2 * difference, "they part at a tie that rounding decides"
        else:
            assert texts[row] == texts_alone[row]


def bias_of(scores: Tensor) -> Tensor:
    bias = torch.zeros_like(scores)
    bias[..., list(NO_END)] = -1e4
    return bias
