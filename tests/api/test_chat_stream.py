"""Streamed answers: the same text as whole ones, an end that says how, and a worker that stops when nobody listens."""

import asyncio
import json
import time
from collections.abc import Callable
from http.client import HTTPConnection
from typing import Any

import httpx
import openai
import pytest
from django.test import RequestFactory
from openai import AsyncOpenAI, OpenAI

from tests.api.answering import Answering
from tests.cast import Cast
from tests.make import make_adapter
from tests.processes import wait_for
from webapp.accounts import keys
from webapp.accounts.models import ApiKey
from webapp.adapters.models import BaseModel, Share
from webapp.api.auth import authenticate
from webapp.api.chat_request import read_chat
from webapp.api.chat_stream import require_still_allowed
from webapp.api.fields import Fields
from webapp.api.names import adapter_name
from webapp.api.wire import ApiError
from webapp.chat import call_lifecycle
from webapp.chat.models import Call, CompletionStatus
from webapp.common import streams

pytestmark = pytest.mark.django_db(transaction=True)
Talk = Callable[..., OpenAI]
CAT: Any = [{"role": "user", "content": "cat"}]
LONG: dict[str, Any] = {"model": "endless", "messages": CAT, "logit_bias": {"2": -100}, "stream": True}


def test_the_chunks_are_the_whole_answer(talk: Talk, base: BaseModel) -> None:
    asked: Any = {"model": "tiny", "messages": CAT, "max_tokens": 20, "seed": 1, "n": 2, "logprobs": True}
    whole = talk().chat.completions.create(**asked)
    chunks = list(talk().chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk.id for chunk in chunks}) == 1
    *others, last = chunks
    assert last.choices == []
    assert last.usage == whole.usage
    assert all(chunk.usage is None for chunk in others)
    for number, choice in enumerate(whole.choices):
        mine = [chunk.choices[0] for chunk in others if chunk.choices[0].index == number]
        assert mine[0].delta.role == "assistant"
        assert "".join(one.delta.content or "" for one in mine) == choice.message.content
        assert [one.finish_reason for one in mine if one.finish_reason] == [choice.finish_reason]
        scored = [token for one in mine if one.logprobs for token in one.logprobs.content or []]
        assert choice.logprobs is not None
        assert [one.token for one in scored] == [one.token for one in choice.logprobs.content or []]


def test_several_async_clients_at_once(answering: Answering, people: Cast, base: BaseModel) -> None:
    key = keys.create(user=people.bob, name="script")

    async def ask(client: AsyncOpenAI, seed: int) -> str:
        stream = await client.chat.completions.create(model="tiny", messages=CAT, max_tokens=20, seed=seed, stream=True)
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    async def all_of_them() -> list[str]:
        async with AsyncOpenAI(api_key=key, base_url=f"{answering.address}/v1") as client:
            return await asyncio.gather(*(ask(client, at % 4) for at in range(12)))

    texts = asyncio.run(all_of_them())
    assert len(set(texts)) == 4
    assert texts[:4] == texts[4:8] == texts[8:]


def test_the_wire_is_plain_server_sent_events(answering: Answering, people: Cast, base: BaseModel) -> None:
    key = keys.create(user=people.bob, name="curl")
    body = {"model": "tiny", "messages": CAT, "max_tokens": 3, "stream": True}
    answer = httpx.post(
        f"{answering.address}/v1/chat/completions", json=body, headers={"Authorization": f"Bearer {key}"}, timeout=60
    )
    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.headers["x-accel-buffering"] == "no"
    blocks = [block for block in answer.text.split("\n\n") if block and not block.startswith(":")]
    assert blocks[-1] == "data: [DONE]"
    assert all(json.loads(block.removeprefix("data: "))["choices"] for block in blocks[:-1])


def test_hanging_up_ends_the_answer(talk: Talk, endless: BaseModel, live_streams: None) -> None:
    stream = talk().chat.completions.create(**LONG)
    assert any(chunk.choices[0].delta.content for chunk in stream)
    call = Call.objects.get()
    stream.close()
    wait_for(lambda: not Call.objects.exists(), every=0.02, why="the call is gone")
    wait_for(lambda: is_quiet(call), why="the worker writes no more")


def test_hanging_up_before_the_answer_ends_it_too(
    answering: Answering, people: Cast, endless: BaseModel, live_streams: None
) -> None:
    headers = {"Authorization": f"Bearer {keys.create(user=people.bob, name='s')}", "Content-Type": "application/json"}
    asking = HTTPConnection(answering.address.removeprefix("http://"))
    asking.request("POST", "/v1/chat/completions", json.dumps(LONG | {"stream": False}), headers)
    begun = Call.objects.filter(status=CompletionStatus.STREAMING)
    wait_for(begun.exists, every=0.02, seconds=120, why="a worker has begun")
    call = Call.objects.get()
    wait_for(lambda: streams.last_event(call.stream), seconds=120, why="it writes")
    asking.close()
    wait_for(lambda: not Call.objects.exists(), every=0.02, why="the call is gone")
    wait_for(lambda: is_quiet(call), why="the worker writes no more")


def is_quiet(call: Call) -> bool:
    before = streams.newest(call.stream)
    time.sleep(0.3)  # many tokens' time
    return streams.newest(call.stream) == before


def test_a_call_that_fails_on_the_way_tells_it_in_the_stream(talk: Talk, endless: BaseModel) -> None:
    stream = talk().chat.completions.create(**LONG)

    def failed() -> bool:
        found = call_lifecycle.beats()
        return any([call_lifecycle.fail_silent(call, seen_beat=seen) for call, seen in found.items()])

    with pytest.raises(openai.APIError) as caught:
        for number, _ in enumerate(stream):
            if number == 0:
                wait_for(failed, seconds=120, every=0.01)
    assert "chat worker was restarted" in str(caught.value)


def test_a_worker_that_is_killed_ends_its_streams_in_words(
    talk: Talk, answering: Answering, base: BaseModel, endless: BaseModel
) -> None:
    stream = iter(talk().chat.completions.create(**LONG))
    assert any(chunk.choices[0].delta.content for chunk in stream)
    answering.worker.kill()
    answering.worker.start()
    with pytest.raises(openai.APIError, match="chat worker was restarted"):
        list(stream)
    done = talk().chat.completions.create(model="tiny", messages=CAT, max_tokens=2)
    assert done.choices[0].finish_reason


@pytest.mark.parametrize("lost", ["key", "share"])
def test_an_answer_under_way_ends_with_the_right_to_it(people: Cast, base: BaseModel, lost: str) -> None:
    """As the stream looks every few seconds: the same request with what it may do by now."""
    adapter = make_adapter(people.team, base)
    share = Share.objects.create(adapter=adapter, team=people.charlie.personal_team)
    headers = {"Authorization": f"Bearer {keys.create(user=people.charlie, name='script')}"}
    request = authenticate(RequestFactory().post("/v1/chat/completions", headers=headers))
    body = Fields({"model": adapter_name(adapter), "messages": CAT})
    asked = read_chat(request.user, request.team, body)
    require_still_allowed(request, asked)
    if lost == "key":
        keys.revoke(ApiKey.objects.get(user=people.charlie), actor=people.charlie)
    else:
        share.delete()
    with pytest.raises(ApiError) as caught:
        require_still_allowed(request, asked)
    assert caught.value.code == {"key": "invalid_api_key", "share": "model_not_found"}[lost]
