"""Requests of different times on one model: they share steps, answer as alone, and one that breaks breaks alone."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.trainer.adapters import make_adapter
from tests.trainer.families import make_family
from trainer.batch import Batch
from trainer.engine import Chunk, Engine, Request
from trainer.errors import TrainerError

LONG, SHORT = list(range(5, 60)), list(range(7, 15))


@pytest.fixture(scope="module")
def engine(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    engine = Engine(base, dtype="float32")
    engine.load_adapter("a", make_adapter(base, tmp_path_factory.mktemp("a"), seed=1))
    return engine


def drawn(prompt: list[int], seed: int, **more: object) -> Request:
    return Request(prompt_ids=prompt, max_tokens=20, temperature=1.1, seed=seed, **more)  # type: ignore[arg-type]


def text_of(chunks: Iterator[Chunk]) -> str:
    return "".join(chunk.text for chunk in chunks)


def alone(engine: Engine, request: Request) -> str:
    return text_of(engine.generate([request], lambda: False))


@pytest.mark.parametrize("piece", [512, 5])
def test_rows_that_come_later_join_and_answer_as_alone(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, piece: int
) -> None:
    monkeypatch.setattr("trainer.batch.PREFILL_TOKENS", piece)
    asked = [
        drawn(SHORT, 1, presence_penalty=0.8),
        drawn(LONG, 2, adapter="a"),
        drawn(SHORT, 3, adapter="a", logit_bias={9: 2.0}),
    ]
    wanted = [alone(engine, one) for one in asked]
    running = [engine.generate([one], lambda: False) for one in asked]
    texts = ["", "", ""]
    for _ in range(5):
        texts[0] += next(running[0]).text
    texts[1] += next(running[1]).text
    texts[2] += next(running[2]).text
    assert [len(batch.rows) for batch in engine._steps._decoding] == [3]
    for at in (2, 0, 1):
        texts[at] += text_of(running[at])
    assert texts == wanted
    assert not engine._steps._decoding
    assert not engine._steps._submissions


def test_columns_that_only_a_row_that_left_needed_are_cut(engine: Engine) -> None:
    short = engine.generate([Request(prompt_ids=SHORT, max_tokens=20)], lambda: False)
    long = engine.generate([Request(prompt_ids=LONG, max_tokens=2)], lambda: False)
    next(short)
    list(long)
    (batch,) = engine._steps._decoding
    assert batch.cached < len(LONG)
    assert batch.left_padding == [0]
    short.close()  # type: ignore[attr-defined]
    assert not engine._steps._decoding


def test_models_whose_caches_cannot_be_joined_answer_beside_each_other(tmp_path: Path) -> None:
    engine = Engine(make_family(tmp_path / "mistral", "mistral"), dtype="float32")
    asked = [drawn(SHORT, 1), drawn(LONG, 2)]
    wanted = [alone(engine, one) for one in asked]
    running = [engine.generate([one], lambda: False) for one in asked]
    assert [next(one).text + text_of(one) for one in running] == wanted


def test_a_row_without_finite_scores_fails_alone(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    sound = Request(prompt_ids=SHORT, max_tokens=12)
    wanted = alone(engine, sound)
    forward = Batch._forward

    def broken(self: Batch, ids: torch.Tensor) -> torch.Tensor:
        scores = forward(self, ids)
        for at, row in enumerate(self.rows):
            if row.limit == 7:
                scores[at] = torch.nan
        return scores

    monkeypatch.setattr(Batch, "_forward", broken)
    running = engine.generate([sound], lambda: False)
    text = next(running).text
    with pytest.raises(TrainerError, match="logits are not finite"):
        list(engine.generate([Request(prompt_ids=SHORT, max_tokens=7)], lambda: False))
    assert text + text_of(running) == wanted


def test_a_step_that_breaks_is_raised_where_its_rows_were_asked_for(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Batch, ids: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(Batch, "_forward", broken)
        failures: list[BaseException] = []

        def run() -> None:
            try:
                list(engine.generate([Request(prompt_ids=SHORT)], lambda: False))
            except RuntimeError as error:
                failures.append(error)

        threads = [threading.Thread(target=run) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert len(failures) == 4
    assert alone(engine, Request(prompt_ids=SHORT, max_tokens=3))


def test_background_work_gets_few_steps_while_somebody_waits(engine: Engine) -> None:
    behind = engine.generate([Request(prompt_ids=SHORT, max_tokens=200)], lambda: False, background=True)
    first = next(behind)
    for _ in engine.generate([Request(prompt_ids=LONG, max_tokens=17)], lambda: False):
        pass
    after = next(behind)
    assert 1 <= after.tokens - first.tokens <= 4
    (batch,) = engine._steps._decoding
    assert len(batch.rows) == 1
    behind.close()  # type: ignore[attr-defined]


def test_many_threads_with_one_stop(engine: Engine) -> None:
    wanted = {seed: alone(engine, drawn(SHORT, seed)) for seed in range(6)}
    found: dict[int, str] = {}
    stopped: list[Chunk] = []

    def ask(seed: int) -> None:
        found[seed] = alone(engine, drawn(SHORT, seed))

    def stop_soon() -> None:
        stopped.extend(engine.generate([drawn(LONG, 9)], lambda: len(stopped) >= 2))

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in wanted]
    threads.append(threading.Thread(target=stop_soon))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert found == wanted
    assert stopped[-1].finish is None
