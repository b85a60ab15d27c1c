"""Stop strings: found across the borders of tokens, never given out, and what only looked like one comes after all."""

from pathlib import Path

import pytest

from trainer.engine import Engine, Request
from trainer.rendering import Renderer
from trainer.stopping import StopStrings


@pytest.mark.parametrize(
    ("stops", "pieces", "given", "found"),
    [
        (["END"], ["one E", "N", "D two"], ["one ", "", ""], True),
        (["END"], ["one E", "N", "E two"], ["one ", "", "ENE two"], False),
        (["aab"], ["a", "a", "a", "b"], ["", "", "a", ""], True),
        (["\n\n", "."], ["a\n", "b.\n\n"], ["a", "\nb"], True),
        (["long one", "o"], ["l", "ong"], ["", "l"], True),
        ([], ["a", "b"], ["a", "b"], False),
    ],
)
def test_text_goes_through_up_to_the_stop(stops: list[str], pieces: list[str], given: list[str], found: bool) -> None:
    through = StopStrings(stops)
    results = [through.add(piece) for piece in pieces]
    assert [text for text, _ in results] == given
    assert results[-1][1] is found


def test_what_was_held_back_comes_at_the_end() -> None:
    through = StopStrings(["END"])
    assert through.add("the EN") == ("the ", False)
    assert through.rest() == "EN"


@pytest.fixture(scope="module")
def engine(base: Path) -> Engine:
    return Engine(base, dtype="float32")


def ask(engine: Engine, prompt: list[int], **more: object) -> Request:
    return Request(prompt_ids=prompt, max_tokens=30, temperature=1.0, seed=1, **more)  # type: ignore[arg-type]


def test_an_answer_ends_before_its_stop_string_and_others_go_on(engine: Engine, base: Path) -> None:
    prompt = Renderer.load(base).prompt_ids([{"role": "user", "content": "cat"}])
    whole = "".join(chunk.text for chunk in engine.generate([ask(engine, prompt)], lambda: False))
    for stop in (whole[1:3], whole[4:6]):
        chunks = list(
            engine.generate([ask(engine, prompt, stop=[stop, "never said"]), ask(engine, prompt)], lambda: False)
        )
        mine = [chunk for chunk in chunks if chunk.row == 0]
        assert "".join(chunk.text for chunk in mine) == whole[: whole.index(stop)]
        assert mine[-1].finish == "stop"
        assert mine[-1].tokens < 30
        assert "".join(chunk.text for chunk in chunks if chunk.row == 1) == whole


def test_tokens_of_a_stop_string_are_not_scored(engine: Engine, base: Path) -> None:
    renderer = Renderer.load(base)
    prompt = renderer.prompt_ids([{"role": "user", "content": "cat"}])
    whole = list(engine.generate([ask(engine, prompt, top_logprobs=0)], lambda: False))
    tokens = [scored.token for chunk in whole for scored in chunk.scored]
    text = "".join(chunk.text for chunk in whole)
    assert len(tokens) == whole[-1].tokens
    chunks = list(engine.generate([ask(engine, prompt, stop=[text[6:9]], top_logprobs=0)], lambda: False))
    found = [scored.token for chunk in chunks for scored in chunk.scored]
    assert found == tokens[: len(found)]
    assert renderer.decode(found).startswith("".join(chunk.text for chunk in chunks))
    assert len(found) < chunks[-1].tokens
