"""Several answers to one prompt: it is read once, and each answer is what it would be alone."""

from pathlib import Path

import pytest
import torch

from tests.trainer.adapters import make_adapter
from tests.trainer.families import make_family
from tests.trainer.seq2seq_bases import make_seq2seq
from trainer.batch import Batch
from trainer.engine import Engine, Request
from trainer.seq2seq_batch import Seq2SeqBatch

PROMPT, OTHER = list(range(5, 60)), list(range(7, 15))


def choice(number: int, prompt: list[int], *, adapter: str | None = None, temperature: float = 1.1) -> Request:
    """Different lengths, so that rows leave at different times."""
    return Request(
        prompt_ids=prompt,
        adapter=adapter,
        max_tokens=8 + 3 * number,
        temperature=temperature,
        seed=number,
        presence_penalty=0.5 * (number % 2),
        top_logprobs=1,
    )


def texts_of(engine: Engine, requests: list[Request]) -> list[str]:
    texts = [""] * len(requests)
    for chunk in engine.generate(requests, lambda: False):
        texts[chunk.row] += chunk.text
    return texts


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each pass of a model had."""
    sizes: list[int] = []
    for kind in (Batch, Seq2SeqBatch):
        forward = kind._forward

        def counted(self: Batch, ids: torch.Tensor, forward: "object" = forward) -> torch.Tensor:
            sizes.append(len(ids))
            return forward(self, ids)  # type: ignore[operator,no-any-return]

        monkeypatch.setattr(kind, "_forward", counted)
    return sizes


@pytest.mark.parametrize("temperature", [0.0, 1.1])
@pytest.mark.parametrize("adapter", [None, "a"])
def test_one_prompt_is_read_once_and_each_choice_is_as_alone(
    base: Path,
    tmp_path: Path,
    read: list[int],
    monkeypatch: pytest.MonkeyPatch,
    temperature: float,
    adapter: str | None,
) -> None:
    monkeypatch.setattr("trainer.batch.PREFILL_TOKENS", 20)
    engine = Engine(base, dtype="float32")
    engine.load_adapter("a", make_adapter(base, tmp_path / "a", seed=1))
    asked = [choice(number, PROMPT, adapter=adapter, temperature=temperature) for number in range(4)]
    wanted = [texts_of(engine, [one])[0] for one in asked]
    read.clear()
    assert texts_of(engine, asked) == wanted
    assert read[:4] == [1, 1, 1, 4]
    if temperature:
        assert len(set(wanted)) == 4


def test_prompts_that_differ_stand_beside_choices_of_one(base: Path, tmp_path: Path, read: list[int]) -> None:
    """The same prompt for another adapter is another one to read."""
    engine = Engine(base, dtype="float32")
    engine.load_adapter("a", make_adapter(base, tmp_path / "a", seed=1))
    asked = [
        choice(0, OTHER),
        choice(1, PROMPT),
        choice(2, OTHER),
        choice(3, PROMPT, adapter="a"),
        choice(4, PROMPT),
        choice(5, OTHER, temperature=0.0),
    ]
    wanted = [texts_of(engine, [one])[0] for one in asked]
    read.clear()
    assert texts_of(engine, asked) == wanted
    assert read[:2] == [3, 6]


@pytest.mark.parametrize("name", ["mistral", "gemma2", "gpt_oss", "bloom"])
def test_caches_of_all_kinds_are_shared(name: str, tmp_path: Path, read: list[int]) -> None:
    """Windows that slide, and models that count distances instead of places."""
    engine = Engine(make_family(tmp_path, name), dtype="float32")
    asked = [choice(0, PROMPT[:40]), choice(1, OTHER), choice(2, PROMPT[:40])]
    wanted = [texts_of(engine, [one])[0] for one in asked]
    read.clear()
    assert texts_of(engine, asked) == wanted
    assert read[:2] == [2, 3]


def test_an_encoder_reads_once_for_all_choices(tmp_path: Path, read: list[int]) -> None:
    engine = Engine(make_seq2seq(tmp_path, "t5"), dtype="float32")
    asked = [choice(number, [*PROMPT[:20], 1]) for number in range(3)]
    wanted = [texts_of(engine, [one])[0] for one in asked]
    read.clear()
    assert texts_of(engine, asked) == wanted
    assert read[:2] == [1, 3]


def test_a_stop_while_the_prompt_is_read_lets_go_of_all_choices(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.batch.PREFILL_TOKENS", 5)
    engine, asked = Engine(base, dtype="float32"), 0

    def soon() -> bool:
        nonlocal asked
        asked += 1
        return asked > 3

    chunks = list(engine.generate([choice(number, PROMPT) for number in range(3)], soon))
    assert [(chunk.tokens, chunk.finish) for chunk in chunks] == [(0, None)] * 3
    assert not engine._steps._prefilling and not engine._steps._submissions


def test_choices_may_leave_while_their_prompt_is_read(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.batch.PREFILL_TOKENS", 20)
    engine = Engine(base, dtype="float32")
    asked = [choice(0, PROMPT), choice(1, OTHER), choice(2, PROMPT), choice(3, PROMPT)]
    wanted = [texts_of(engine, [one])[0] for one in asked]
    batch = engine._make_batch([engine._row(number, request) for number, request in enumerate(asked)])
    assert batch.step(engine._active_adapters) == []
    batch.keep([1, 2, 3])
    texts = [""] * len(asked)
    while batch.rows:
        for row, chunk in batch.step(engine._active_adapters):
            texts[row.number] += chunk.text
    assert texts == ["", *wanted[1:]]
