"""Messages in the form that chat templates expect, and what a template cannot render. No torch."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from trainer.chat_template import Message
from trainer.errors import TrainerError

ROLES = ("system", "developer", "user", "assistant", "tool")
# Fields of a message that some templates leave out, and what people call them.
PARTS = {"reasoning_content": "reasoning", "tool_calls": "tool calls"}
TOOLS = "tools"

Render = Callable[[Sequence[Message], Sequence[Any] | None], str]


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
    """Parse a call's arguments, which OpenAI sends as JSON text: templates serialise them themselves."""
    function = call.get("function")
    if not isinstance(function, dict) or not isinstance(function.get("arguments"), str):
        return dict(call)
    try:
        arguments = json.loads(function["arguments"])
    except ValueError:
        return dict(call)
    return {**call, "function": {**function, "arguments": arguments}}


def visible_fields(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message as the template gets it, without `weight`, which is for the loss alone."""
    return {key: value for key, value in message.items() if key != "weight"}


def left_out(messages: Sequence[Message], tools: Sequence[Any] | None, render: Render) -> set[str]:
    """What the template leaves out of a conversation: the rendered text is the same without it."""
    parts = [(at, name) for at, message in enumerate(messages) for name in PARTS if message.get(name)]
    if not parts and not tools:
        return set()
    whole = render(messages, tools)
    found = {PARTS[name] for at, name in parts if whole in _try_render(render, _without(messages, at, name), tools)}
    return found | ({TOOLS} if tools and whole in _try_render(render, messages, None) else set())


def _without(messages: Sequence[Message], at: int, name: str) -> list[Message]:
    message = {key: value for key, value in messages[at].items() if key != name}
    return [*messages[:at], {**message, "content": message.get("content") or ""}, *messages[at + 1 :]]


def _try_render(render: Render, messages: Sequence[Message], tools: Sequence[Any] | None) -> Iterator[str]:
    """Yield the rendered conversation, or nothing if the template refuses it."""
    try:
        yield render(messages, tools)
    except TrainerError:
        return


def refusal(
    error: TrainerError, messages: Sequence[Message], tools: Sequence[Any] | None, render: Render
) -> TrainerError:
    """A clearer error, if what the template refused is an answer with tool calls and no content."""
    bare = [at for at, message in enumerate(messages) if message.get("tool_calls") and "content" not in message]
    if not bare:
        return error
    with_content = [{**message, "content": message.get("content", "")} for message in messages]
    if not any(True for _ in _try_render(render, with_content, tools)):
        return error
    return TrainerError(
        "dataset_invalid",
        "The base model's chat template cannot render an answer with tool calls and no content, "
        f"such as message {bare[0] + 1}.",
        "Choose a base model whose chat template renders tool calls, or leave such rows out.",
    )
