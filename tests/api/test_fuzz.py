"""Whatever is sent to any address of the API, no answer is a 5xx, and every refusal has the wire's shape."""

import io
import json
import re
from typing import Any

import pytest
from django.test import Client
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.api.test_permissions import TABLE, Form, addresses
from tests.test_permission_matrix import World
from webapp.accounts import keys
from webapp.api.endpoints import GROUPS
from webapp.api.openapi import document

TEXTS = st.text(max_size=30) | st.sampled_from(
    ["\x00", "file-", "ft:a:b:c:0123456789ab", "../../etc", "9" * 400, "-1", "1e999"]
)
NUMBERS = (
    st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([2**63, -(2**63) - 1, 10**400])
)
LEAVES = st.none() | st.booleans() | NUMBERS | TEXTS
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3), max_leaves=8
)
FIELDS = (
    "model",
    "messages",
    "purpose",
    "filename",
    "bytes",
    "mime_type",
    "part_ids",
    "md5",
    "training_file",
    "suffix",
    "seed",
)
FIELDS += (
    "method",
    "hyperparameters",
    "metadata",
    "stop",
    "n",
    "stream",
    "temperature",
    "max_tokens",
    "prompt",
    "project_ids",
)
FIELDS += (
    "expires_after",
    "validation_file",
    "spec",
    "input_file_id",
    "endpoint",
    "completion_window",
    "tools",
    "logprobs",
)
BODIES = st.dictionaries(st.sampled_from(FIELDS) | TEXTS, VALUES, max_size=6)
QUERIES = st.dictionaries(
    st.sampled_from(["after", "limit", "order", "purpose", "metadata", "metadata[a]"]) | TEXTS, TEXTS, max_size=3
)
CALLS = {key: one for found in GROUPS.values() for key, one in found.items()}
SCHEMAS: dict[str, Any] = document("http://x/v1")["components"]["schemas"]
MANY = settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
STREAMED = ("api_chat_completions", "api_completions")  # asked in their own tests: an answer needs a chat worker


class Named(io.BytesIO):
    """A file with any name."""

    def __init__(self, name: str) -> None:
        super().__init__(b"{}")
        self.name = name


def check(answer: Any, sent: object) -> None:
    assert answer.status_code < 500, (answer.status_code, answer.content[:500], sent)
    if answer.status_code >= 400:
        error = json.loads(answer.content)["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert isinstance(error["message"], str)
        assert error["param"] is None or isinstance(error["param"], str)


def paths(world: World, name: str, method: str) -> str:
    return TABLE[name, method][1](world)


@pytest.mark.parametrize(("name", "method"), sorted(addresses()))
def test_bodies_queries_and_headers(world: World, name: str, method: str) -> None:
    if (name, method) not in TABLE or name in STREAMED:
        pytest.skip("not in the table of addresses that answer by themselves")
    key = keys.create(user=world.cast.bob, name="script")
    path = f"/v1/{paths(world, name, method)}"

    good = TABLE[name, method][2]
    good = {} if good is None or isinstance(good, Form) else good(world) if callable(good) else good
    takes = CALLS[name, method].takes
    known = st.sampled_from(sorted(SCHEMAS[takes]["properties"]) if takes else FIELDS)
    bodies = st.dictionaries(known, VALUES, max_size=6) | BODIES  # a field that nobody knows ends it early

    @MANY
    @given(change=bodies, query=QUERIES, given_id=TEXTS, spoilt=st.booleans())
    def send(change: Any, query: dict[str, str], given_id: str, spoilt: bool) -> None:
        headers = {"Authorization": f"Bearer {key}"}
        body = change if spoilt else good | change
        for place in (path, re.sub(r"/[^/]*$", "/", path) + re.sub(r"[\s?#]", "_", given_id)):
            answer = Client(raise_request_exception=False).generic(
                method,
                place,
                json.dumps(body) if method == "POST" else "",
                content_type="application/json",
                headers=headers,
                query_params=query,
            )
            check(answer, (place, body, query))

    send()


@MANY
@given(
    form=st.dictionaries(
        st.sampled_from(["purpose", "expires_after[seconds]", "expires_after[anchor]"]) | TEXTS, TEXTS, max_size=4
    ),
    name=TEXTS,
)
def test_forms(world: World, form: dict[str, str], name: str) -> None:
    key = getattr(world, "fuzz_key", None) or keys.create(user=world.cast.bob, name="script")
    world.fuzz_key = key  # type: ignore[attr-defined]
    for sent in (form, form | {"purpose": "fine-tune"}):
        answer = Client().post("/v1/files", sent | {"file": Named(name)}, headers={"Authorization": f"Bearer {key}"})
        check(answer, (sent, name))
