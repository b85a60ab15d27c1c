"""Bodies that the OpenAPI document allows never fail the server, and what is refused is refused in the wire's shape."""

import json
from typing import Any

import pytest
from django.test import Client
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.api.test_fuzz import STREAMED, check
from tests.api.test_permissions import TABLE
from tests.test_permission_matrix import World
from webapp.accounts import keys
from webapp.api.endpoints import GROUPS
from webapp.api.openapi import document

SCHEMAS: dict[str, Any] = document("http://x/v1")["components"]["schemas"]
CALLS = {key: one for found in GROUPS.values() for key, one in found.items() if one.sends == "application/json"}
FEW = settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
TEXTS = st.text(max_size=20)
ANYTHING: st.SearchStrategy[Any] = st.none() | st.booleans() | st.integers() | TEXTS


def allowed(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values that the schema allows, as far as it says something of them."""
    if "$ref" in schema:
        return allowed(SCHEMAS[schema["$ref"].rpartition("/")[2]])
    if "enum" in schema or "const" in schema:
        return st.sampled_from(schema["enum"] if "enum" in schema else [schema["const"]])
    if "anyOf" in schema:
        return st.one_of(*map(allowed, schema["anyOf"]))
    kinds = schema.get("type", "anything")
    return st.one_of(*(of_kind(kind, schema) for kind in ([kinds] if isinstance(kinds, str) else kinds)))


def of_kind(kind: str, schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    low, high = schema.get("minimum"), schema.get("maximum")
    if kind == "integer":
        return st.integers(None if low is None else int(low), None if high is None else int(high))
    if kind == "number":
        return st.floats(low, high, allow_nan=False, allow_infinity=False)
    if kind == "string":
        return st.text(min_size=schema.get("minLength", 0), max_size=min(20, schema.get("maxLength", 20)))
    if kind == "array":
        least = schema.get("minItems", 0)
        return st.lists(allowed(schema["items"]), min_size=least, max_size=min(schema.get("maxItems", 3), least + 2))
    if kind == "object":
        return of_object(schema)
    return {"boolean": st.booleans(), "null": st.none()}.get(kind, ANYTHING)


def of_object(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    fields = {name: allowed(one) for name, one in schema.get("properties", {}).items()}
    needed = {name: fields.pop(name) for name in schema.get("required", ())}
    more = schema.get("additionalProperties")
    if not fields and not needed and more:
        return st.dictionaries(TEXTS, allowed(more) if isinstance(more, dict) else ANYTHING, max_size=3)
    return st.fixed_dictionaries(needed, optional=fields)


@pytest.mark.parametrize("key", sorted(CALLS))
def test_what_the_document_allows(world: World, key: tuple[str, str]) -> None:
    name, method = key
    headers = {"Authorization": f"Bearer {keys.create(user=world.cast.bob, name='script')}"}
    path = f"/v1/{TABLE[key][1](world)}"
    good = TABLE[key][2]
    real = (good(world) if callable(good) else good) or {}
    # Whole requests for a model wait for a worker that is not there; their fields are read all the same.
    kept = {"model": "ft:none"} if name in STREAMED else {}

    @FEW
    @given(body=allowed(SCHEMAS[CALLS[key].takes]), as_it_is=st.booleans())
    def send(body: dict[str, Any], as_it_is: bool) -> None:
        sent = body | ({} if as_it_is else real) | kept
        client = Client(raise_request_exception=False)
        answer = client.generic(method, path, json.dumps(sent), content_type="application/json", headers=headers)
        check(answer, (path, sent))

    send()
