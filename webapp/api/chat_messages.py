"""Messages of a chat request: the wire's shapes checked field by field, and made into what templates take."""

from collections.abc import Sequence
from typing import Any

from webapp.api.fields import Fields, bad

ROLES = ("system", "developer", "user", "assistant", "tool", "function")
MOST_MESSAGES = 10_000


def read_messages(body: Fields) -> list[dict[str, Any]]:
    """The conversation; `developer` is what newer clients call the system."""
    given = body.items("messages")
    if not given:
        body.bad("messages", "must have at least one message")
    if len(given) > MOST_MESSAGES:
        body.bad("messages", f"has more than {MOST_MESSAGES} messages")
    messages = [_message(_object(one, f"messages[{at}]")) for at, one in enumerate(given)]
    if messages[-1]["role"] == "assistant":
        bad(f"messages[{len(messages) - 1}].role", "The last message must not be the assistant's: it is the answer.")
    return messages


def read_tools(body: Fields) -> list[dict[str, Any]]:
    """The functions the model may call, as templates take them."""
    tools = body.items("tools") if body.has("tools") else []
    for at, one in enumerate(tools):
        tool = _object(one, f"tools[{at}]")
        if tool.values.get("type") != "function":
            tool.bad("type", "must be function")
        function = tool.inside("function")
        if not function.text("name", most=64).strip():
            function.bad("name", "must not be empty")
        for name in ("description",):
            if function.has(name):
                function.text(name)
        function.inside("parameters")
    return list(tools)


def _object(value: Any, at: str) -> Fields:
    if not isinstance(value, dict):
        bad(at, f"`{at}` must be an object.")
    return Fields(value, at)


def _message(message: Fields) -> dict[str, Any]:
    role = message.choice("role", ROLES)
    made: dict[str, Any] = {"role": {"developer": "system", "function": "tool"}.get(role, role)}
    calls = _calls(message) if role == "assistant" else []
    if message.has("content") or not calls:
        made["content"] = _content(message)
    else:
        made["content"] = ""
    if calls:
        made["tool_calls"] = calls
    for name in ("name", "tool_call_id"):
        if message.has(name):
            made[name] = message.text(name, most=256)
    return made


def _content(message: Fields) -> str:
    content = message.required("content")
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        message.bad("content", "must be a string or an array of text parts")
    parts = [_object(one, f"{message.path('content')}[{at}]") for at, one in enumerate(content)]
    return "".join(_part(part) for part in parts)


def _part(part: Fields) -> str:
    kind = part.text("type", most=64)
    if kind == "refusal":
        return part.text("refusal")
    if kind != "text":
        part.bad("type", f"must be text: models here read no {kind[:40]!r}")
    return part.text("text")


def _calls(message: Fields) -> Sequence[dict[str, Any]]:
    given = message.items("tool_calls") if message.has("tool_calls") else []
    for at, one in enumerate(given):
        call = _object(one, f"{message.path('tool_calls')}[{at}]")
        function = call.inside("function")
        function.text("name", most=64)
        function.text("arguments")
    return given
