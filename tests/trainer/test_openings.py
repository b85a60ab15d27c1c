"""Answers that must begin in a given way: the form of a call is the template's own, and the engine keeps to it."""

from pathlib import Path

import pytest
import torch

from tests.trainer import chat_templates
from trainer.engine import Engine, Request
from trainer.errors import TrainerError
from trainer.opening import Opening, mask_logits
from trainer.rendering import Renderer

PROMPT = list(range(5, 40))
TOOLS = [{"type": "function", "function": {"name": name, "parameters": {}}} for name in ("get", "get_weather")]


@pytest.mark.parametrize("sentencepiece", [False, True], ids=["bytes", "sentencepiece"])
@pytest.mark.parametrize(
    ("template", "wanted"),
    [
        ("qwen", '<think></think><tool_call>{"name":"get_weather","arguments":'),
        ("llama3", '{"name":"get_weather","parameters":'),
    ],
)
def test_a_call_begins_as_the_template_writes_it(
    tmp_path: Path, template: str, wanted: str, sentencepiece: bool
) -> None:
    renderer = Renderer.load(chat_templates.make_base(tmp_path, template, sentencepiece=sentencepiece))
    found = renderer.call_opening("get_weather")
    assert found is not None
    assert "".join(renderer.decode(found).split()) == wanted
    call = {"id": "1", "type": "function", "function": {"name": "get_weather", "arguments": {"city": "Paris"}}}
    turns = [{"role": "user", "content": "A"}]
    whole = renderer.example([*turns, {"role": "assistant", "content": "", "tool_calls": [call]}], tools=TOOLS).ids
    prompt = renderer.prompt_ids(turns, TOOLS)
    assert whole[len(prompt) : len(prompt) + len(found)] == found, "the tokens are those of training"


@pytest.mark.parametrize("template", ["smollm2", "mistral", "gemma", "marked", "reasoning"])
def test_templates_without_a_form_for_calls_have_no_beginning(tmp_path: Path, template: str) -> None:
    assert Renderer.load(chat_templates.make_base(tmp_path, template)).call_opening("get") is None


def test_an_answer_begins_with_one_of_the_beginnings_and_goes_on_freely(base: Path) -> None:
    engine = Engine(base, dtype="float32")
    plain = Request(prompt_ids=PROMPT, max_tokens=12)
    openings = [[20, 21, 22], [20, 30], [40]]
    asked = [plain, *(Request(prompt_ids=PROMPT, max_tokens=12, openings=[one], top_logprobs=0) for one in openings)]
    tokens: list[list[int]] = [[] for _ in asked]
    for chunk in engine.generate(asked, lambda: False):
        tokens[chunk.row] += [one.token for one in chunk.scored]
    assert [found[: len(one)] for one, found in zip(openings, tokens[1:], strict=True)] == openings
    assert all(len(found) > len(one) for one, found in zip(openings, tokens[1:], strict=True))
    free = list(engine.generate([Request(prompt_ids=[*PROMPT, 20, 30], max_tokens=10, top_logprobs=0)], lambda: False))
    assert tokens[2][2:] == [one.token for chunk in free for one in chunk.scored], "as if it stood in the prompt"
    alone = "".join(chunk.text for chunk in engine.generate([plain], lambda: False))
    assert "".join(chunk.text for chunk in engine.generate([*asked], lambda: False) if chunk.row == 0) == alone


def test_of_several_beginnings_the_likelier_tokens_win() -> None:
    opening = Opening([[1, 2], [1, 3, 4], [5, 6]])
    scores = torch.tensor([[9.0, 1.0, 0.0, 2.0, 0.0, 0.5, 3.0]])
    said = []
    while opening.allowed():
        said.append(int(mask_logits(scores, [opening]).argmax()))
        opening.take(said[-1])
    assert said == [1, 3, 4]
    assert mask_logits(scores, [opening, None]) is scores
    opening.take(0)  # whatever comes later


def test_the_shorter_of_two_beginnings_counts() -> None:
    opening = Opening([[1], [1, 2]])
    opening.take(1)
    assert opening.allowed() == []


@pytest.mark.parametrize("opening", [[], [99_999]], ids=str)
def test_what_no_answer_can_begin_with_is_refused(base: Path, opening: list[int]) -> None:
    with pytest.raises(TrainerError, match="no such tokens"):
        list(Engine(base, dtype="float32").generate([Request(prompt_ids=PROMPT, openings=[opening])], lambda: False))
