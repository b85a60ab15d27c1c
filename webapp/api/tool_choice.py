"""`tool_choice`: which functions the model sees, and which of them its answer must begin to call."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from trainer.rendering import Renderer
from webapp.api.fields import Fields
from webapp.api.wire import ApiError

WORDS = ("none", "auto", "required")
MOST_FORCED = 128  # functions: a call of each is rendered


@dataclass(frozen=True)
class ToolChoice:
    """`tools` stand in the prompt. `forced`: the functions one of which is called; none when the model may choose."""

    tools: list[dict[str, Any]]
    forced: tuple[str, ...] = ()
    is_named: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """The functions that calls are looked for."""
        return self.forced or tuple(names_of(self.tools))


@dataclass(frozen=True)
class Forced:
    """How an answer begins that calls a function: by its name, the tokens up to the arguments, and what they spell."""

    tokens: Mapping[str, list[int]] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    is_named: bool = False  # one call of this function is all

    @property
    def longest(self) -> int:
        return max(map(len, self.tokens.values()), default=0)


def read_choice(body: Fields, tools: list[dict[str, Any]]) -> ToolChoice:
    """Raises ApiError with `param` at the field that cannot be."""
    choice = body.values.get("tool_choice")
    if choice is None or choice in ("auto", "none"):
        return ToolChoice([] if choice == "none" else tools)
    if choice != "required" and not isinstance(choice, dict):
        body.bad("tool_choice", f"must be {', '.join(WORDS)} or an object that names a function")
    if not tools:
        body.bad("tool_choice", "needs `tools`: there is nothing to call")
    if choice == "required" and len(tools) > MOST_FORCED:
        body.bad("tools", f"has more than {MOST_FORCED} functions; name one in `tool_choice`")
    if choice == "required":
        return ToolChoice(tools, tuple(names_of(tools)))
    named = body.inside("tool_choice")
    if named.text("type", most=64) != "function":
        named.bad("type", "must be function")
    function = named.inside("function")
    name = function.text("name", most=64)
    if name not in names_of(tools):
        function.bad("name", "is none of the functions in `tools`")
    return ToolChoice(tools, (name,), is_named=True)


def names_of(tools: list[dict[str, Any]]) -> list[str]:
    return [tool["function"]["name"] for tool in tools]


def forced_by(choice: ToolChoice, renderer: Renderer, base: str) -> Forced:
    """The beginnings that the base model's own template has for calls. Raises ApiError 400 when it has none."""
    found = {name: renderer.call_opening(name) for name in choice.forced}
    tokens = {name: ids for name, ids in found.items() if ids is not None}
    if len(tokens) < len(found):
        text = f"The chat template of {base} writes no calls that an answer could be made to begin with."
        raise ApiError(400, f'{text} Use `tool_choice` "auto".', param="tool_choice", code="tool_choice_not_supported")
    return Forced(tokens, {name: renderer.decode(ids) for name, ids in tokens.items()}, choice.is_named)
