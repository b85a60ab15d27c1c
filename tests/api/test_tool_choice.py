"""`tool_choice`: an answer that must call begins with the call that the base model's own template writes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI

from tests.api.test_batches import ended, line, rows_of, start
from tests.cast import Cast
from tests.make import make_base
from tests.tiny import widen_tiny_base
from tests.trainer import chat_templates
from trainer.rendering import Renderer
from webapp.adapters.models import BaseModel
from webapp.api.chat_tools import ToolWatch, answer_of, finish_of
from webapp.api.tool_choice import Forced

pytestmark = pytest.mark.django_db(transaction=True)
Talk = Callable[..., OpenAI]
CAT: Any = [{"role": "user", "content": "cat"}]
TOOLS: Any = [
    {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}}
    for name in ("get", "get_weather")
]
NAMED: Any = {"type": "function", "function": {"name": "get_weather"}}


@pytest.fixture(params=["qwen", "llama3"])
def calling(request: pytest.FixtureRequest, people: Cast, tmp_path: Path) -> BaseModel:
    """A base model whose template writes calls: in tags, and as the whole answer."""
    folder = chat_templates.make_base(tmp_path / "base", request.param)
    # The template of these tests writes calls and shows no tools; a line in front does.
    template = folder / "chat_template.jinja"
    shown = "{% for tool in tools or [] %}{{ tool | tojson }}{% endfor %}" if request.param == "llama3" else ""
    template.write_text(shown + template.read_text())
    widen_tiny_base(folder)
    return make_base(name="calls", path=folder, facts={"context_length": 512})


def asked(**more: Any) -> dict[str, Any]:
    return {"model": "calls", "messages": CAT, "tools": TOOLS, "max_tokens": 90} | more


def test_a_named_function_is_called_whatever_the_model_would_say(talk: Talk, calling: BaseModel) -> None:
    done = talk().chat.completions.create(**asked(tool_choice=NAMED, n=3, seed=1, logprobs=True))
    for choice in done.choices:
        (call,) = choice.message.tool_calls or []
        assert call.type == "function"
        assert call.function.name == "get_weather"
        assert choice.message.content is None
        assert "get_weather" in "".join(
            one.token for one in (choice.logprobs.content if choice.logprobs else None) or []
        )
    assert len({choice.message.tool_calls[0].function.arguments for choice in done.choices}) == 3  # type: ignore[index]


def test_required_calls_the_function_that_the_model_finds_likelier(talk: Talk, calling: BaseModel) -> None:
    """Both begin alike; a bias on the token that tells them apart decides."""
    renderer = Renderer.load(calling.folder)
    short, long = (renderer.call_opening(name) or [] for name in ("get", "get_weather"))
    at = next(at for at, (one, two) in enumerate(zip(short, long, strict=False)) if one != two)
    for name, token in (("get", short[at]), ("get_weather", long[at])):
        wanted = asked(tool_choice="required", logit_bias={str(token): 50})
        (choice,) = talk().chat.completions.create(**wanted).choices
        assert [call.function.name for call in choice.message.tool_calls or []][:1] == [name]  # type: ignore[union-attr]


def test_a_stream_brings_the_same_call(talk: Talk, calling: BaseModel) -> None:
    wanted = asked(tool_choice=NAMED, temperature=0)
    (whole,) = talk().chat.completions.create(**wanted).choices
    chunks = [chunk.choices[0] for chunk in talk().chat.completions.create(**wanted, stream=True)]
    assert not any(one.delta.content for one in chunks)
    (call,) = [call for one in chunks for call in one.delta.tool_calls or []]
    assert call.function is not None
    assert whole.message.tool_calls
    assert (call.index, call.function.to_dict()) == (0, whole.message.tool_calls[0].function.to_dict())  # type: ignore[union-attr]
    assert chunks[-1].finish_reason == whole.finish_reason


def test_a_batch_calls_too(talk: Talk, calling: BaseModel) -> None:
    client = talk()
    one = line("a", **asked(tool_choice="required"))
    done = ended(client, start(client, [one]))
    body = rows_of(client, done.output_file_id)["a"]["response"]["body"]
    assert body["choices"][0]["message"]["tool_calls"][0]["function"]["name"] in ("get", "get_weather")


@pytest.mark.parametrize(
    ("change", "param", "said"),
    [
        ({"tool_choice": "required", "tools": []}, "tool_choice", "nothing to call"),
        ({"tool_choice": "required", "tools": TOOLS * 65}, "tools", "more than 128 functions"),
        ({"tool_choice": "always"}, "tool_choice", "must be none, auto, required or an object"),
        ({"tool_choice": 1}, "tool_choice", "must be none, auto, required or an object"),
        ({"tool_choice": {"type": "custom"}}, "tool_choice.type", "must be function"),
        ({"tool_choice": {"type": "function"}}, "tool_choice.function.name", "missing"),
        (
            {"tool_choice": {"type": "function", "function": {"name": "no"}}},
            "tool_choice.function.name",
            "none of the functions",
        ),
        ({"tool_choice": NAMED, "max_tokens": 20}, "max_completion_tokens", "begins with"),
    ],
    ids=str,
)
def test_what_cannot_be_names_its_field(
    client: OpenAI, calling: BaseModel, change: dict[str, Any], param: str, said: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.post("/chat/completions", body=asked(**change), cast_to=object)
    assert caught.value.param == param
    assert said in caught.value.message


@pytest.mark.parametrize("choice", ["required", NAMED], ids=str)
def test_a_template_that_writes_no_calls_says_so(client: OpenAI, tool_base: BaseModel, choice: Any) -> None:
    with pytest.raises(openai.BadRequestError, match="writes no calls") as caught:
        client.chat.completions.create(**asked(model="tools", tool_choice=choice))
    assert (caught.value.param, caught.value.code) == ("tool_choice", "tool_choice_not_supported")


TAG = '<think>\n\n</think>\n\n<tool_call>\n{"name": "get", "arguments": '
BARE = '{"name": "get", "parameters": '


@pytest.mark.parametrize(
    ("beginning", "rest", "is_named", "arguments", "ends"),
    [
        (TAG, '{"a": 1}}\n</tool_call>', True, ['{"a": 1}'], ("stop", "tool_calls")),
        (TAG, '{"a": 1}} is the call', True, ['{"a": 1}'], ("stop", "tool_calls")),
        (TAG, ' {"a": \n</tool_call> and so on', True, ['{"a":'], ("stop", "tool_calls")),
        (TAG, "seven", True, ["seven"], ("stop", "tool_calls")),
        (BARE, '{"a": 1}}', True, ['{"a": 1}'], ("stop", "tool_calls")),
        (BARE, '{"a": ', True, ['{"a":'], ("length", "length")),
        (
            TAG,
            '{}}\n</tool_call>\n<tool_call>\n{"name": "put", "arguments": {}}',
            False,
            ["{}", "{}"],
            ("stop", "tool_calls"),
        ),
        (TAG, '{}}\n</tool_call>\n<tool_call>\n{"name": "get", "arguments": {}}', True, ["{}"], ("stop", "tool_calls")),
    ],
)
def test_what_a_model_makes_of_the_beginning(
    beginning: str, rest: str, is_named: bool, arguments: list[str], ends: tuple[str, str]
) -> None:
    forced = Forced({"get": [1]}, {"get": beginning}, is_named)
    text = beginning.rstrip() + rest
    content, calls = answer_of(text, ["get", "put"], forced)
    assert content == ""
    assert [call["function"]["arguments"] for call in calls] == arguments
    assert calls[0]["function"]["name"] == "get"
    assert finish_of(ends[0], calls) == ends[1]
    watch = ToolWatch(["get", "put"], forced)
    assert "".join(watch.add(letter) for letter in text) == ""
    assert json.dumps([call["function"] for call in watch.rest()[1]]) == json.dumps([one["function"] for one in calls])
