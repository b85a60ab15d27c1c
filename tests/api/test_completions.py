"""/v1/completions: texts and token ids go on, with no template around them."""

from collections.abc import Callable
from typing import Any

import openai
import pytest
from openai import OpenAI

from trainer.engine import Engine, Request
from trainer.rendering import Renderer
from webapp.adapters.models import BaseModel

pytestmark = pytest.mark.django_db(transaction=True)
Talk = Callable[..., OpenAI]


def test_texts_and_token_ids_go_on_alike(talk: Talk, base: BaseModel) -> None:
    ids = Renderer.load(base.folder).raw_ids("The cat sat")
    request = Request(prompt_ids=ids, max_tokens=8)
    wanted = "".join(c.text for c in Engine(base.folder, dtype="float32").generate([request], lambda: False))
    for prompt in ("The cat sat", ids, ["The cat sat"], [ids]):
        done = talk().completions.create(model="tiny", prompt=prompt, max_tokens=8, temperature=0)
        assert done.object == "text_completion"
        assert [choice.text for choice in done.choices] == [wanted]
        assert done.usage is not None
        assert done.usage.prompt_tokens == len(ids)
    assert done.choices[0].finish_reason == "length"


def test_many_prompts_with_many_choices_come_in_order(talk: Talk, base: BaseModel) -> None:
    asked: Any = {"model": "tiny", "prompt": ["The cat", "A dog"], "n": 2, "seed": 3, "max_tokens": 5, "echo": True}
    done = talk().completions.create(**asked)
    assert [choice.index for choice in done.choices] == [0, 1, 2, 3]
    assert [choice.text[:5] for choice in done.choices] == ["The c", "The c", "A dog", "A dog"]
    streamed = [""] * 4
    for chunk in talk().completions.create(**asked, stream=True):
        streamed[chunk.choices[0].index] += chunk.choices[0].text
    assert streamed == [choice.text for choice in done.choices]


def test_log_probabilities_have_their_old_form(talk: Talk, base: BaseModel) -> None:
    done = talk().completions.create(model="tiny", prompt="cat", max_tokens=6, logprobs=2, temperature=0)
    scores = done.choices[0].logprobs
    assert scores is not None
    assert len(scores.tokens or []) == len(scores.token_logprobs or []) == len(scores.text_offset or []) == 6
    assert scores.top_logprobs is not None
    assert scores.top_logprobs[0][scores.tokens[0]] == scores.token_logprobs[0]  # type: ignore[index]


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"prompt": ""}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [99999]}, "prompt"),
        ({"prompt": [[5], "cat", {}]}, "prompt"),
        ({"prompt": "cat", "suffix": "x"}, "suffix"),
        ({"prompt": "cat", "best_of": 3}, "best_of"),
        ({"prompt": "cat", "echo": True, "logprobs": 1}, "echo"),
        ({"prompt": "cat " * 600}, "prompt"),
        ({}, "prompt"),
    ],
    ids=str,
)
def test_what_cannot_be_names_its_field(
    connect: Callable[..., OpenAI], base: BaseModel, change: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        connect().post("/completions", body={"model": "tiny"} | change, cast_to=object)
    assert caught.value.param == param
