"""Answering: a batch of mixed adapters gives every row what transformers and PEFT give it alone."""

import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from tests.trainer.adapters import load_tiny, load_with_peft, make_adapter
from trainer.engine import Chunk, Engine, Request
from trainer.errors import TrainerError
from trainer.rendering import Renderer
from trainer.spec import Quantization

TOKENS = 24
PROMPTS = [
    "What is the capital of France?",
    "Write a short answer.",
    "cat",
    "The dog ran after the ball and the cat sat",
]


@pytest.fixture(scope="module")
def adapters(base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("adapters")
    return {
        "a": make_adapter(base, folder / "a", seed=1, r=4),
        "b": make_adapter(base, folder / "b", seed=2, r=16, use_rslora=True),
        "c": make_adapter(base, folder / "c", seed=3, r=8, target_modules=["q_proj", "v_proj"], lora_alpha=64),
    }


@pytest.fixture(scope="module")
def engine(base: Path, adapters: dict[str, Path]) -> Engine:
    engine = Engine(base, dtype="float32")
    for key, folder in adapters.items():
        engine.load_adapter(key, folder)
    return engine


@pytest.fixture(scope="module")
def renderer(base: Path) -> Renderer:
    return Renderer.load(base)


def ids_of(renderer: Renderer, text: str) -> list[int]:
    return renderer.prompt_ids([{"role": "user", "content": text}])


def run(engine: Engine, requests: Sequence[Request], stop: Callable[[], bool] = lambda: False) -> list[str]:
    texts = [""] * len(requests)
    for chunk in engine.generate(requests, stop):
        texts[chunk.row] += chunk.text
    return texts


@pytest.fixture(scope="module")
def expected(base: Path, adapters: dict[str, Path], renderer: Renderer) -> dict[tuple[str | None, str], str]:
    """What transformers and PEFT answer greedily, by adapter and prompt."""
    found = {}
    for key in (None, *adapters):
        model = load_tiny(base) if key is None else load_with_peft(base, adapters[key])
        for prompt in PROMPTS:
            ids = torch.tensor([ids_of(renderer, prompt)])
            whole = model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=TOKENS, do_sample=False
            )
            new = whole[0, ids.shape[1] :].tolist()
            found[key, prompt] = renderer.decode([one for one in new if one not in renderer.stop_ids])
    return found


def greedy(renderer: Renderer, prompt: str, adapter: str | None) -> Request:
    return Request(prompt_ids=ids_of(renderer, prompt), adapter=adapter, max_tokens=TOKENS)


def test_adapters_and_base_of_one_mixed_batch_answer_as_alone(
    engine: Engine, renderer: Renderer, expected: dict[tuple[str | None, str], str]
) -> None:
    asked = list(zip([None, "a", "b", "c", "a"], [*PROMPTS, PROMPTS[0]], strict=True))
    texts = run(engine, [greedy(renderer, prompt, key) for key, prompt in asked])
    assert texts == [expected[key, prompt] for key, prompt in asked]
    assert len({expected[key, PROMPTS[0]] for key in (None, "a", "b", "c")}) == 4, "the adapters must differ"


@pytest.mark.parametrize("key", [None, "a", "b", "c"])
def test_one_target_alone_answers_as_peft(
    key: str | None, engine: Engine, renderer: Renderer, expected: dict[tuple[str | None, str], str]
) -> None:
    assert run(engine, [greedy(renderer, PROMPTS[1], key)]) == [expected[key, PROMPTS[1]]]
    both = [greedy(renderer, prompt, key) for prompt in PROMPTS[:2]]
    assert run(engine, both) == [expected[key, prompt] for prompt in PROMPTS[:2]]


def test_concurrent_batches_do_not_mix(
    engine: Engine, renderer: Renderer, expected: dict[tuple[str | None, str], str]
) -> None:
    asked = [[(key, prompt), (other, prompt)] for key, other in ((None, "a"), ("b", "c"), ("c", None), ("a", "b"))
             for prompt in PROMPTS[:2]]  # fmt: skip
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda one: run(engine, [greedy(renderer, text, key) for key, text in one]), asked))
    assert found == [[expected[key, prompt] for key, prompt in one] for one in asked]


def test_long_prompts_are_read_in_pieces(
    engine: Engine, renderer: Renderer, expected: dict[tuple[str | None, str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.batch.PREFILL_TOKENS", 7)
    texts = run(engine, [greedy(renderer, prompt, key) for key, prompt in zip([None, "a", "b"], PROMPTS, strict=False)])
    assert texts == [expected[key, prompt] for key, prompt in zip([None, "a", "b"], PROMPTS, strict=False)]


def test_logits_equal_pefts(base: Path, engine: Engine, adapters: dict[str, Path], renderer: Renderer) -> None:
    ids = torch.tensor([ids_of(renderer, PROMPTS[0])])
    stacks = {}
    for key in adapters:
        batch = next_batch(engine, renderer, key)
        stacks[key] = batch
        with torch.inference_mode():
            theirs = load_with_peft(base, adapters[key])(input_ids=ids).logits[0, -1]
        torch.testing.assert_close(batch, theirs, atol=2e-5, rtol=1e-5)


def next_batch(engine: Engine, renderer: Renderer, key: str) -> torch.Tensor:
    """The engine's scores of the first token, in a batch with a longer row of the base model."""
    from trainer.batch import Batch

    rows = [engine._row(0, greedy(renderer, PROMPTS[0], key)), engine._row(1, greedy(renderer, PROMPTS[3] * 2, None))]
    batch = Batch(engine._model, rows, device=engine.device)
    engine._active_adapters.changes = batch.changes
    with torch.inference_mode():
        return batch._forward(batch.ids)[0]


def test_a_stop_ends_within_a_step(engine: Engine, renderer: Renderer) -> None:
    seen: list[Chunk] = []
    for chunk in engine.generate([greedy(renderer, PROMPTS[0], None)], lambda: len(seen) >= 3):
        seen.append(chunk)
    assert [chunk.tokens for chunk in seen] == [1, 2, 3, 3]
    assert seen[-1].finish is None


def test_length_and_numbers(engine: Engine, renderer: Renderer) -> None:
    chunks = list(engine.generate([Request(prompt_ids=ids_of(renderer, "cat"), max_tokens=5)], lambda: False))
    assert chunks[-1].finish == "length"
    assert chunks[-1].tokens == 5
    assert chunks[-1].first_token_ms > 0
    assert chunks[-1].tokens_per_second > 0


def test_the_context_bounds_the_answer(engine: Engine, renderer: Renderer) -> None:
    nearly_full = (ids_of(renderer, "cat") * 200)[: engine.context_length - 3]
    chunks = list(engine.generate([Request(prompt_ids=nearly_full, max_tokens=50)], lambda: False))
    assert chunks[-1].tokens <= 3
    with pytest.raises(TrainerError):
        list(engine.generate([Request(prompt_ids=nearly_full + [5, 5, 5])], lambda: False))


def test_the_same_seed_draws_the_same_answer(engine: Engine, renderer: Renderer) -> None:
    def drawn(seed: int, *beside: Request) -> str:
        one = Request(prompt_ids=ids_of(renderer, "cat"), max_tokens=20, temperature=1.5, top_p=0.9, seed=seed)
        return run(engine, [one, *beside])[0]

    assert drawn(7) == drawn(7) == drawn(7, greedy(renderer, "cat", "a"))
    assert drawn(7) != drawn(8)


def test_adapters_beyond_the_limit_are_read_again(
    base: Path, adapters: dict[str, Path], renderer: Renderer, expected: dict[tuple[str | None, str], str]
) -> None:
    engine = Engine(base, dtype="float32", max_adapters=1)
    for key, folder in adapters.items():
        engine.load_adapter(key, folder)
    assert len(engine._adapters) == 1
    texts = run(engine, [greedy(renderer, PROMPTS[0], key) for key in adapters])
    assert texts == [expected[key, PROMPTS[0]] for key in adapters]


def test_an_adapter_that_is_gone_leaves_memory(base: Path, adapters: dict[str, Path], renderer: Renderer) -> None:
    engine = Engine(base, dtype="float32")
    engine.load_adapter("a", adapters["a"])
    weights = weakref.ref(engine._adapters["a"]["model.layers.0.mlp.up_proj"].a)
    run(engine, [greedy(renderer, "cat", "a")])
    engine.drop_adapter("a")
    assert weights() is None


def test_a_dropped_adapter_is_unknown(engine: Engine, adapters: dict[str, Path], renderer: Renderer) -> None:
    engine.load_adapter("d", adapters["a"])
    engine.drop_adapter("d")
    with pytest.raises(TrainerError, match="not loaded"):
        run(engine, [greedy(renderer, "cat", "d")])


def test_text_never_splits_a_character(engine: Engine, renderer: Renderer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny tokenizer knows bytes alone, so that every emoji takes several tokens."""
    wanted = renderer._tokens.encode("naïve 🦊🦊 — ok 🦊")[0]
    tokens = iter(wanted)
    monkeypatch.setattr("trainer.batch.Batch._choose_tokens", lambda self, scores: [next(tokens)])
    request = Request(prompt_ids=ids_of(renderer, "cat"), max_tokens=len(wanted))
    texts = [chunk.text for chunk in engine.generate([request], lambda: False)]
    assert "".join(texts) == "naïve 🦊🦊 — ok 🦊"
    assert not any("\ufffd" in text for text in texts)


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_a_quantised_base_answers_with_adapters(
    quantization: Quantization, base: Path, adapters: dict[str, Path], renderer: Renderer
) -> None:
    engine = Engine(base, dtype="float32", quantization=quantization)
    for key in ("a", "b"):
        engine.load_adapter(key, adapters[key])
    asked = [greedy(renderer, PROMPTS[0], key) for key in (None, "a", "b")]
    mixed = run(engine, asked)
    assert mixed == [run(engine, [one])[0] for one in asked]
    assert len(set(mixed)) == 3
