"""/v1/chat/completions with the official client, a real server, a real chat worker and a tiny base model."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI

from tests.cast import Cast
from trainer.engine import Engine, Request
from trainer.rendering import Renderer
from webapp.adapters.models import Adapter, BaseModel
from webapp.api.chat_tools import ToolWatch, split_calls
from webapp.api.names import adapter_name
from webapp.chat.models import Call

pytestmark = pytest.mark.django_db(transaction=True)
Talk = Callable[..., OpenAI]
CAT: Any = [{"role": "user", "content": "cat"}]


def alone(folder: Path, messages: list[dict[str, str]], adapter: Adapter | None = None, **options: Any) -> str:
    """What an engine of its own says."""
    engine = Engine(folder, dtype="float32")
    if adapter:
        engine.load_adapter("own", adapter.folder)
    ids = Renderer.load(folder).prompt_ids(messages)
    request = Request(prompt_ids=ids, adapter="own" if adapter else None, **options)
    return "".join(chunk.text for chunk in engine.generate([request], lambda: False))


def test_an_answer_is_the_engines(talk: Talk, base: BaseModel) -> None:
    done = talk().chat.completions.create(model="tiny", messages=CAT, max_tokens=12, temperature=0)
    assert done.object == "chat.completion"
    assert done.id.startswith("chatcmpl-")
    assert done.model == "tiny"
    (choice,) = done.choices
    assert choice.message.content == alone(base.folder, CAT, max_tokens=12)
    assert (choice.message.role, choice.finish_reason, choice.logprobs) == ("assistant", "length", None)
    prompt = len(Renderer.load(base.folder).prompt_ids(CAT))
    assert done.usage is not None
    assert (done.usage.prompt_tokens, done.usage.completion_tokens, done.usage.total_tokens) == (
        prompt,
        12,
        prompt + 12,
    )
    assert done.system_fingerprint
    assert not Call.objects.exists()


def test_an_adapter_answers_by_its_name_and_by_its_id(talk: Talk, base: BaseModel, adapter: Adapter) -> None:
    wanted = alone(base.folder, CAT, adapter, max_tokens=12)
    assert wanted != alone(base.folder, CAT, max_tokens=12)
    asked: Any = {"messages": CAT, "max_tokens": 12, "temperature": 0}
    by_name = talk().chat.completions.create(model=adapter_name(adapter), **asked)
    by_id = talk().chat.completions.create(model="tiny", extra_body={"adapter": str(adapter.pk)}, **asked)
    assert [one.choices[0].message.content for one in (by_name, by_id)] == [wanted, wanted]
    assert by_name.system_fingerprint == by_id.system_fingerprint


def test_several_choices_are_drawn_apart_and_again_alike(talk: Talk, base: BaseModel) -> None:
    def texts(seed: int) -> list[str | None]:
        done = talk().chat.completions.create(model="tiny", messages=CAT, max_tokens=10, n=3, seed=seed)
        assert done.usage is not None
        assert done.usage.completion_tokens <= 30
        return [choice.message.content for choice in done.choices]

    first = texts(5)
    assert len(set(first)) == 3
    assert texts(5) == first
    assert texts(6) != first


def test_penalties_biases_and_log_probabilities_reach_the_engine(talk: Talk, base: BaseModel) -> None:
    renderer = Renderer.load(base.folder)
    token = renderer.raw_ids("7")[0]
    asked: Any = {"model": "tiny", "messages": CAT, "max_tokens": 4, "logprobs": True, "top_logprobs": 2}
    done = talk().chat.completions.create(**asked, logit_bias={str(token): 100}, temperature=0)
    assert done.choices[0].message.content == "7777"
    scores = done.choices[0].logprobs
    assert scores is not None
    assert scores.content is not None
    assert [one.token for one in scores.content] == ["7"] * 4
    assert all(one.logprob < 0 and one.bytes == [ord("7")] and len(one.top_logprobs) == 2 for one in scores.content)
    wishes: Any = {"logit_bias": {str(token): 5}, "presence_penalty": 2, "frequency_penalty": 2}
    unlike = talk().chat.completions.create(**asked, **wishes, temperature=0)
    assert unlike.choices[0].message.content != "7777"


@pytest.mark.parametrize("own", [{"top_k": 1}, {"min_p": 1.0}], ids=str)
def test_own_limits_of_drawing_travel_as_extra_fields(talk: Talk, base: BaseModel, own: dict[str, float]) -> None:
    """Nothing but the likeliest token is left, whatever the temperature."""
    asked: Any = {"model": "tiny", "messages": CAT, "max_tokens": 12, "temperature": 2, "seed": 1}
    wanted = alone(base.folder, CAT, max_tokens=12)
    assert talk().chat.completions.create(**asked).choices[0].message.content != wanted
    assert talk().chat.completions.create(**asked, extra_body=own).choices[0].message.content == wanted


def test_any_number_of_likely_tokens_is_no_limit(talk: Talk, base: BaseModel) -> None:
    """Other servers write it as -1."""
    asked: Any = {"model": "tiny", "messages": CAT, "max_tokens": 12, "seed": 1}
    texts = [
        talk().chat.completions.create(**asked, extra_body=own).choices[0].message.content
        for own in ({}, {"top_k": -1}, {"top_k": 0}, {"min_p": 0})
    ]
    assert len(set(texts)) == 1


def test_stop_strings_are_not_given_out(talk: Talk, base: BaseModel) -> None:
    drawn: dict[str, Any] = {"temperature": 1.0, "seed": 1, "max_tokens": 30}
    whole = alone(base.folder, CAT, **drawn)
    done = talk().chat.completions.create(model="tiny", messages=CAT, stop=[whole[2:4], "never"], **drawn)
    assert done.choices[0].message.content == whole[:2]
    assert done.choices[0].finish_reason == "stop"


def test_roles_and_parts_are_read(talk: Talk, base: BaseModel) -> None:
    plain = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "The cat sat"}]
    parts: Any = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "The cat "}, {"type": "text", "text": "sat"}]},
    ]
    done = talk().chat.completions.create(model="tiny", messages=parts, max_completion_tokens=8, temperature=0)
    assert done.choices[0].message.content == alone(base.folder, plain, max_tokens=8)


WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"messages": []}, "messages", "at least one"),
    ({"messages": [{"role": "cat", "content": "x"}]}, "messages[0].role", "must be one of"),
    ({"messages": [{"role": "user"}]}, "messages[0].content", "missing"),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
        "messages[0].content[0].type",
        "must be text",
    ),
    ({"temperature": 3}, "temperature", "from 0 to 2"),
    ({"n": 0}, "n", "from 1"),
    ({"top_k": -2}, "top_k", "from -1"),
    ({"top_k": 1.5}, "top_k", "whole number"),
    ({"min_p": 1.5}, "min_p", "from 0 to 1"),
    ({"stop": ["a"] * 5}, "stop", "more than 4"),
    ({"logit_bias": {"cat": 1}}, "logit_bias", "token id"),
    ({"logit_bias": {"99999": 1}}, "logit_bias", "this model has"),
    ({"top_logprobs": 3}, "top_logprobs", "needs `logprobs`"),
    ({"response_format": {"type": "json_object"}}, "response_format.type", "must be text"),
    ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools", "no place for tools"),
    ({"chat_template": "{{ 1 }}"}, "chat_template", "the base model alone"),
    ({"functions": [{"name": "f"}]}, "functions", "use that"),
    ({"moderation": {"model": "x"}}, "moderation", "are moderated here"),
    ({"tool_choice": "required"}, "tool_choice", "needs `tools`"),
    ({"stream_options": {"include_usage": True}}, "stream_options", "for streams"),
    ({"max_tokens": 5000}, "messages", "at most 512 tokens"),
]


@pytest.mark.parametrize(("change", "param", "said"), WRONG, ids=lambda value: str(value)[:30])
def test_what_cannot_be_names_its_field(
    connect: Callable[..., OpenAI], base: BaseModel, change: dict[str, Any], param: str, said: str
) -> None:
    asked: dict[str, Any] = {"model": "tiny", "messages": CAT} | change
    with pytest.raises(openai.BadRequestError) as caught:
        connect().post("/chat/completions", body=asked, cast_to=object)
    assert caught.value.param == param
    assert said in caught.value.message


def test_too_long_a_prompt_is_told_in_numbers(connect: Callable[..., OpenAI], base: BaseModel) -> None:
    with pytest.raises(openai.BadRequestError, match="reads at most 512 tokens") as caught:
        connect().chat.completions.create(model="tiny", messages=[{"role": "user", "content": "cat " * 600}])
    assert caught.value.code == "context_length_exceeded"


@pytest.mark.parametrize("who", ["bob", "vera"])
def test_who_may_see_an_adapter_may_talk_to_it(talk: Talk, adapter: Adapter, who: str) -> None:
    done = talk(who).chat.completions.create(model=adapter_name(adapter), messages=CAT, max_tokens=2)
    assert done.choices[0].finish_reason in ("length", "stop")


def test_strangers_find_no_model(connect: Callable[..., OpenAI], people: Cast, adapter: Adapter) -> None:
    for more in ({"model": adapter_name(adapter)}, {"model": "tiny", "extra_body": {"adapter": str(adapter.pk)}}):
        with pytest.raises(openai.NotFoundError) as caught:
            connect("charlie").chat.completions.create(messages=CAT, **more)
        assert caught.value.code == "model_not_found"


def test_without_a_broker_clients_are_told_to_come_again(connect: Callable[..., OpenAI], base: BaseModel) -> None:
    with pytest.raises(openai.InternalServerError) as caught:
        connect().chat.completions.create(model="tiny", messages=CAT)
    assert caught.value.status_code == 503
    assert caught.value.response.headers["x-should-retry"] == "true"
    assert not Call.objects.exists()


def test_a_template_with_tools_gets_them(talk: Talk, tool_base: BaseModel) -> None:
    tools: Any = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
    asked: Any = {"model": "tools", "messages": CAT, "max_tokens": 3}
    with_tools = talk().chat.completions.create(**asked, tools=tools)
    without = talk().chat.completions.create(**asked, tools=tools, tool_choice="none")
    assert with_tools.usage is not None
    assert without.usage is not None
    assert with_tools.usage.prompt_tokens > without.usage.prompt_tokens


CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Paris"}}\n</tool_call>'


@pytest.mark.parametrize(
    ("text", "plain", "arguments"),
    [
        (CALL, "", ['{"city": "Paris"}']),
        (f"Let me look.\n{CALL}\n{CALL}", "Let me look.", ['{"city": "Paris"}'] * 2),
        ('{"name": "weather", "parameters": {"city": "Paris"}}', "", ['{"city": "Paris"}']),
        ('[{"name": "weather", "arguments": {}}, {"name": "weather", "arguments": {}}]', "", ["{}"] * 2),
        ("[1] and [2]", "[1] and [2]", []),
        ('{"name": "other", "parameters": {}}', '{"name": "other", "parameters": {}}', []),
        ("<tool_call>no json</tool_call>", "<tool_call>no json</tool_call>", []),
        ("It is 3 < 4 {ok}", "It is 3 < 4 {ok}", []),
    ],
)
def test_calls_are_found_in_an_answer_whole_and_streamed(text: str, plain: str, arguments: list[str]) -> None:
    found, calls = split_calls(text, ["weather"])
    assert found == plain
    assert [call["function"]["arguments"] for call in calls] == arguments
    watch = ToolWatch(["weather"])
    streamed = "".join(watch.add(letter) for letter in text)
    rest, calls = watch.rest()
    assert (streamed + rest).strip() == plain
    assert [call["function"]["arguments"] for call in calls] == arguments
