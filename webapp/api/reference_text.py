"""The reference page's calls: each with its fields, and examples in Python and curl. No database here."""

import json
import shlex
from dataclasses import dataclass
from typing import Any

from webapp.api.endpoints import MODEL, Endpoint
from webapp.api.openapi import calls, document
from webapp.api.shapes import Schema

HEX = "0123456789abcdef0123456789abcdef"
IDS = {
    "model": MODEL,
    "file": f"file-{HEX}",
    "upload": f"upload_{HEX}",
    "job": f"ftjob-{HEX}",
    "checkpoint": f"ftckpt-{HEX}",
    "permission": f"cp_{HEX}",
    "batch": f"batch_{HEX}",
}
KEY = '-H "Authorization: Bearer $LOWRANK_API_KEY"'


@dataclass(frozen=True)
class Named:
    """A field: what it is called, what it holds, whether it must be sent, and what it means."""

    name: str
    kind: str
    required: bool
    about: str


@dataclass(frozen=True)
class Call:
    """One call as the page shows it."""

    anchor: str
    method: str
    path: str
    endpoint: Endpoint
    curl: str
    takes: list[Named]
    gives: list[Named]


def begin(address: str) -> str:
    """What the Python examples go on from."""
    return f'''import os

from openai import OpenAI

client = OpenAI(base_url="{address}", api_key=os.environ["LOWRANK_API_KEY"])
'''


def groups(address: str) -> dict[str, list[Call]]:
    """All calls by group, for the server at this address."""
    schemas = document(address)["components"]["schemas"]
    found: dict[str, list[Call]] = {}
    for group, path, method, name, endpoint in calls():
        takes = _fields(schemas[endpoint.takes]) if endpoint.takes else []
        gives = _fields(schemas[endpoint.gives]) if endpoint.gives else []
        curl = curl_of(address, path, method, endpoint)
        found.setdefault(group, []).append(Call(name, method, f"/v1{path}", endpoint, curl, takes, gives))
    return found


def curl_of(address: str, path: str, method: str, endpoint: Endpoint) -> str:
    parts = [f"curl {shlex.quote(address + path.format(**IDS))}", KEY]
    if method == "DELETE" or (method == "POST" and not endpoint.takes):
        parts.insert(1, f"-X {method}")
    if endpoint.sends == "application/json":
        parts += ['-H "Content-Type: application/json"', f"-d {shlex.quote(json.dumps(endpoint.example))}"]
    elif endpoint.sends:
        parts += [f"-F {shlex.quote(f'{name}={value}')}" for name, value in endpoint.example.items()]
    if endpoint.media != "application/json":
        parts.append("-o answer")
    return " \\\n  ".join(parts)


def _fields(schema: Schema) -> list[Named]:
    required = schema.get("required", ())
    return [
        Named(name, kind_of(one), name in required, one.get("description", ""))
        for name, one in schema["properties"].items()
    ]


def kind_of(schema: Schema) -> str:
    """In a few words."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "const" in schema:
        return json.dumps(schema["const"])
    if "enum" in schema:
        return ", ".join(_word(one) for one in schema["enum"])
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(kind_of(one) for one in schema["anyOf"]))
    kind: Any = schema.get("type", "anything")
    name = " or ".join(kind) if isinstance(kind, list) else str(kind)
    return f"{name} of {kind_of(schema['items'])}" if "items" in schema else name


def _word(value: object) -> str:
    return "null" if value is None else str(value)
