"""Words for JSON Schemas: what the OpenAPI document is written in."""

from typing import Any

Schema = dict[str, Any]


def ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def text(about: str = "", **limits: Any) -> Schema:
    return {"type": "string"} | limits | _about(about)


def whole(about: str = "", **limits: Any) -> Schema:
    return {"type": "integer"} | limits | _about(about)


def number(about: str = "", **limits: Any) -> Schema:
    return {"type": "number"} | limits | _about(about)


def flag(about: str = "") -> Schema:
    return {"type": "boolean"} | _about(about)


def one_of(*words: str, about: str = "") -> Schema:
    return {"type": "string", "enum": list(words)} | _about(about)


def many(item: Schema, about: str = "", **limits: Any) -> Schema:
    return {"type": "array", "items": item} | limits | _about(about)


def moment(about: str = "") -> Schema:
    return whole(f"{about} Seconds since 1970.".strip())


def free(about: str = "") -> Schema:
    """An object with any fields."""
    return {"type": "object", "additionalProperties": True} | _about(about)


def words(about: str = "", **limits: Any) -> Schema:
    """An object of texts by name."""
    return {"type": "object", "additionalProperties": {"type": "string"}} | limits | _about(about)


def or_null(schema: Schema) -> Schema:
    if "$ref" in schema:
        return {"anyOf": [schema, {"type": "null"}]}
    kind = schema["type"]
    return schema | {"type": [*(kind if isinstance(kind, list) else [kind]), "null"]} | _with_null(schema)


def _with_null(schema: Schema) -> Schema:
    return {"enum": [*schema["enum"], None]} if "enum" in schema else {}


def answer(kind: str, **fields: Schema) -> Schema:
    """An object that we send: every field is there, and no other."""
    fields = ({"object": {"const": kind}} if kind else {}) | fields
    return {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}


def asked(required: tuple[str, ...], **fields: Schema) -> Schema:
    """An object that is sent to us; null counts as not sent."""
    optional = {name: schema if name in required else or_null(schema) if "type" in schema else schema
                for name, schema in fields.items()}  # fmt: skip
    return {"type": "object", "properties": optional, "required": list(required), "additionalProperties": False}


def page_of(name: str) -> Schema:
    ends = {"first_id": or_null(text()), "last_id": or_null(text("What `after` takes for the next page."))}
    return answer("list", data=many(ref(name)), has_more=flag(), **ends)


def _about(about: str) -> Schema:
    return {"description": about} if about else {}
