"""The OpenAPI document of /v1, put together from the addresses, the table of calls and the schemas."""

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from django.urls import URLPattern

from webapp.api import urls
from webapp.api.answer_shapes import answer_schemas
from webapp.api.auth import TEAM_HEADERS
from webapp.api.endpoints import DIFFERENCES, GROUPS, IDEMPOTENCY, QUERIES, Endpoint
from webapp.api.idempotency import HEADER, LONGEST
from webapp.api.request_shapes import request_schemas
from webapp.api.shapes import Schema, ref, text
from webapp.version import version

PLACE = re.compile(r"<(?:\w+:)?(\w+)>")
REFUSALS = {
    "400": "A field is wrong; `param` names it.",
    "401": "No good key.",
    "403": "The role is too low.",
    "404": "There is none, or the key may not see it.",
    "429": "Too many requests; see `retry-after`.",
}
HEADERS = dict.fromkeys(TEAM_HEADERS, text("A team's slug; the key's last team without it.")) | {
    HEADER: text("A name for this request: sent again, it gets the first one's answer.", maxLength=LONGEST)
}
EVENTS = "text/event-stream"


def calls() -> Iterator[tuple[str, str, str, str, Endpoint]]:
    """Group, path, method and operation name of every call, in the order of the table."""
    paths = {one.name: _path(one) for one in _patterns()}
    for group, found in GROUPS.items():
        for (name, method), endpoint in found.items():
            yield group, paths[name], method, f"{method.lower()}_{name.removeprefix('api_')}", endpoint


def _patterns() -> list[URLPattern]:
    return [one for one in urls.urlpatterns if isinstance(one, URLPattern)]


def _path(pattern: URLPattern) -> str:
    return "/" + PLACE.sub(r"{\1}", str(pattern.pattern))


@cache
def _lasting() -> dict[str, Any]:
    """All but the server's address."""
    paths: dict[str, dict[str, Any]] = {}
    once = {_path(one) for one in _patterns() if getattr(one.callback, "names_posts", False)}
    for group, path, method, name, endpoint in calls():
        headers = (*TEAM_HEADERS, HEADER) if method == "POST" and path in once else TEAM_HEADERS
        operation = _operation(path, endpoint, headers) | {"operationId": name, "tags": [group]}
        paths.setdefault(path, {})[method.lower()] = operation
    about = "Fine-tune and chat on your own machines. The official openai client speaks it: change `base_url`."
    about = "\n\n".join((about, IDEMPOTENCY, "Different from OpenAI:", *(f"- {one}" for one in DIFFERENCES)))
    return {
        "openapi": "3.1.0",
        "info": {"title": "Lowrank", "version": version(), "description": about},
        "security": [{"key": []}],
        "tags": [{"name": group} for group in GROUPS],
        "paths": paths,
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "description": "An API key, lr_…"}},
            "schemas": answer_schemas() | request_schemas(),
            "parameters": {name: {"name": name, "in": "header", "schema": one} for name, one in HEADERS.items()},
        },
    }


def document(address: str) -> dict[str, Any]:
    """The document, for the server at this address."""
    return _lasting() | {"servers": [{"url": address}]}


def _operation(path: str, endpoint: Endpoint, headers: tuple[str, ...]) -> dict[str, Any]:
    places = [{"name": name, "in": "path", "required": True, "schema": text()} for name in re.findall(r"{(\w+)}", path)]
    query = [{"name": name, "in": "query", "schema": QUERIES[name]} for name in endpoint.query]
    heads = [{"$ref": f"#/components/parameters/{name}"} for name in headers]
    refused = {code: {"description": why, "content": _json("Error")} for code, why in REFUSALS.items()}
    made: dict[str, Any] = {
        "summary": endpoint.summary,
        "parameters": [*places, *query, *heads],
        "responses": {"200": {"description": "Done.", "content": _answer(endpoint)}, **refused},
    }
    if endpoint.about:
        made["description"] = endpoint.about
    if endpoint.takes:
        body: dict[str, Any] = {"schema": ref(endpoint.takes)}
        if endpoint.sends == "application/json":
            body["example"] = endpoint.example
        made["requestBody"] = {"required": True, "content": {endpoint.sends: body}}
    return made


def _answer(endpoint: Endpoint) -> dict[str, Any]:
    if not endpoint.gives:
        file: Schema = {"type": "string", "format": "binary"}
        return {endpoint.media: {"schema": file}}
    streamed = {EVENTS: {"schema": ref("ChatCompletionChunk")}} if endpoint.gives == "ChatCompletion" else {}
    return _json(endpoint.gives) | streamed


def _json(name: str) -> dict[str, Any]:
    return {"application/json": {"schema": ref(name)}}
