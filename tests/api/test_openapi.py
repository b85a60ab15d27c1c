"""The OpenAPI document says what is there: every address and method, valid, and true of real answers."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client
from jsonschema import Draft202012Validator
from openai import OpenAI
from openapi_spec_validator import validate

from tests.api.test_permissions import TABLE, Form, addresses
from tests.test_permission_matrix import World
from webapp.accounts import keys
from webapp.adapters.models import Adapter
from webapp.api.endpoints import GROUPS, Endpoint
from webapp.api.names import adapter_name
from webapp.api.openapi import calls, document

CALLS = {key: endpoint for found in GROUPS.values() for key, endpoint in found.items()}
STREAMED = {("api_chat_completions", "POST"), ("api_completions", "POST")}


def schema(name: str) -> Draft202012Validator:
    parts = document("http://x/v1")["components"]
    return Draft202012Validator({"$ref": f"#/components/schemas/{name}", "components": parts})


def test_it_is_valid_and_open_to_all() -> None:
    answer = Client().get("/v1/openapi.json", headers={"Host": "localhost"})
    found = answer.json()
    validate(found)
    assert found["servers"] == [{"url": "http://localhost/v1"}]


def test_every_address_is_described_and_nothing_else() -> None:
    assert set(CALLS) == set(addresses())
    found = document("http://x/v1")["paths"]
    described = {(path, method.upper()) for path, methods in found.items() for method in methods}
    assert described == {(path, method) for _, path, method, _, _ in calls()}
    assert len(described) == len(CALLS)


def test_requests_that_can_be_named_say_so() -> None:
    named = set()
    for path, methods in document("http://x/v1")["paths"].items():
        for method, one in methods.items():
            if {"$ref": "#/components/parameters/Idempotency-Key"} in one["parameters"]:
                named.add((path, method))
    posts = {(path, "post") for _, path, method, _, _ in calls() if method == "POST"}
    assert named == posts - {("/chat/completions", "post"), ("/completions", "post")}


def test_every_schema_that_is_named_is_there() -> None:
    text = json.dumps(document("http://x/v1"))
    named = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert named == set(document("http://x/v1")["components"]["schemas"])


@pytest.mark.parametrize(
    "key", sorted(key for key, one in CALLS.items() if one.takes and one.sends == "application/json")
)
def test_examples_are_what_the_schema_takes(key: tuple[str, str]) -> None:
    schema(CALLS[key].takes).validate(CALLS[key].example)


@pytest.mark.parametrize("key", sorted(set(CALLS) - STREAMED))
def test_real_answers_match(world: World, key: tuple[str, str]) -> None:
    endpoint: Endpoint = CALLS[key]
    _, path, body = TABLE[key]
    body = body(world) if callable(body) else body
    headers = {"Authorization": f"Bearer {keys.create(user=world.cast.bob, name='script')}"}
    sent: dict[str, Any] = {"data": body, "content_type": "application/json"} if body is not None else {}
    if isinstance(body, Form):
        sent = {"data": {name: value() if callable(value) else value for name, value in body.items()}}
    got = getattr(Client(), key[1].lower())(f"/v1/{path(world)}", headers=headers, **sent)
    if got.status_code >= 400:
        schema("Error").validate(got.json())
    elif endpoint.gives:
        schema(endpoint.gives).validate(got.json())
    else:
        assert got.headers["Content-Type"] == endpoint.media


def test_answers_of_models_match(talk: Callable[..., OpenAI], adapter: Adapter) -> None:
    client, name = talk(), adapter_name(adapter)
    options: dict[str, Any] = {"model": name, "max_tokens": 3}
    chat = {"messages": [{"role": "user", "content": "Hi"}], "logprobs": True, "top_logprobs": 1}
    raw = client.chat.completions.with_raw_response.create(**options, **chat)
    schema("ChatCompletion").validate(raw.http_response.json())
    text = client.completions.with_raw_response.create(**options, prompt="Hi", logprobs=1)
    schema("Completion").validate(text.http_response.json())
    with client.chat.completions.with_streaming_response.create(
        **options, **chat, stream=True, stream_options={"include_usage": True}
    ) as stream:
        lines = [line.removeprefix("data: ") for line in stream.iter_lines() if line.startswith("data: {")]
    assert len(lines) >= 3
    for line in lines:
        schema("ChatCompletionChunk").validate(json.loads(line))
