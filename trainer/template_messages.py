"""Messages as chat templates take them, and what a template has no form for. No torch here."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from trainer.chat_template import Message
from trainer.errors import TrainerError

ROLES = ("system", "developer", "user", "assistant", "tool")
# What not every template writes of a message, and its name for people.
PARTS = {"reasoning_content": "reasoning", "tool_calls": "tool calls"}
TOOLS = "tools"

Write = Callable[[Sequence[Message], Sequence[Any] | None], str]


def plain(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Messages as templates expect them: no empty keys, text parts joined, call arguments as objects."""
    found = []
    for message in messages:
        if message.get("role") not in ROLES:
            raise TrainerError(
                "dataset_invalid",
                f"A message has the role {message.get('role')!r:.40}.",
                f"Use one of {', '.join(ROLES)}.",
            )
        kept = {key: value for key, value in message.items() if value is not None}
        if isinstance(kept.get("content"), list):
            kept["content"] = "".join(part.get("text", "") for part in kept["content"] if isinstance(part, dict))
        if kept.get("tool_calls"):
            kept["tool_calls"] = [_call_with_object(call) for call in kept["tool_calls"]]
        found.append(kept)
    return found


def _call_with_object(call: Mapping[str, Any]) -> dict[str, Any]:
    """OpenAI writes a call's arguments as JSON text; templates write them out as JSON themselves."""
    function = call.get("function")
    if not isinstance(function, dict) or not isinstance(function.get("arguments"), str):
        return dict(call)
    try:
        arguments = json.loads(function["arguments"])
    except ValueError:
        return dict(call)
    return {**call, "function": {**function, "arguments": arguments}}


def shown(message: Mapping[str, Any]) -> dict[str, Any]:
    """What the template sees: `weight` is for the loss alone."""
    return {key: value for key, value in message.items() if key != "weight"}


def left_out(messages: Sequence[Message], tools: Sequence[Any] | None, write: Write) -> set[str]:
    """What of a conversation the template passes over: its text is the same without."""
    parts = [(at, name) for at, message in enumerate(messages) for name in PARTS if message.get(name)]
    if not parts and not tools:
        return set()
    whole = write(messages, tools)
    found = {PARTS[name] for at, name in parts if whole in _texts(write, _without(messages, at, name), tools)}
    return found | ({TOOLS} if tools and whole in _texts(write, messages, None) else set())


def _without(messages: Sequence[Message], at: int, name: str) -> list[Message]:
    message = {key: value for key, value in messages[at].items() if key != name}
    return [*messages[:at], {**message, "content": message.get("content") or ""}, *messages[at + 1 :]]


def _texts(write: Write, messages: Sequence[Message], tools: Sequence[Any] | None) -> Iterator[str]:
    """The conversation as the template writes it; nothing where it refuses that."""
    try:
        yield write(messages, tools)
    except TrainerError:
        return


def refusal(
    error: TrainerError, messages: Sequence[Message], tools: Sequence[Any] | None, write: Write
) -> TrainerError:
    """The refusal in words that a person understands, where its cause is an answer of calls alone."""
    silent = [at for at, message in enumerate(messages) if message.get("tool_calls") and "content" not in message]
    if not silent:
        return error
    spoken = [{**message, "content": message.get("content", "")} for message in messages]
    if not any(True for _ in _texts(write, spoken, tools)):
        return error
    return TrainerError(
        "dataset_invalid",
        "The base model's chat template has no form for an answer that calls a tool and says nothing beside it, "
        f"such as message {silent[0] + 1}.",
        "Choose a base model whose chat template writes tool calls, or leave such rows out.",
    )
