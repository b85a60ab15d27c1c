"""Renders a base model's chat template in a sandbox, with limits on time and size."""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from datetime import datetime
from typing import Any

from jinja2 import TemplateError, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from trainer.errors import TrainerError

Message = Mapping[str, Any]

SECONDS = 3.0  # a chat template takes well under a millisecond
MAX_CHARACTERS = 1 << 24
# Methods and filters that can make a long text from a number. No known template needs them.
PADDING = {"ljust", "rjust", "center", "zfill", "expandtabs", "format", "format_map", "translate"}

# What a template can raise, by its own mistakes or because of its input.
TEMPLATE_FAULTS = (
    TemplateError,
    TypeError,
    ValueError,
    ArithmeticError,
    LookupError,
    AttributeError,
    RecursionError,
)

# The deadline of the render in progress, per thread and task, because they share compiled templates.
_deadline: ContextVar[float] = ContextVar("deadline")


class _LimitExceeded(TemplateError):
    """The template exceeded a limit."""


def _tick() -> str:
    if time.monotonic() > _deadline.get():
        raise _LimitExceeded(f"it ran for more than {SECONDS:g} seconds")
    return ""


class _Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's sandbox isolates templates from Python; this one also limits their time and memory."""

    intercepted_binops = frozenset(["*", "**", "%"])

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        blocks: list[nodes.For | nodes.Macro] = [*tree.find_all(nodes.For), *tree.find_all(nodes.Macro)]
        for block in blocks:
            call = nodes.Call(nodes.Name("_tick", "load"), [], [], None, None)
            block.body.insert(0, nodes.Output([call]).set_lineno(block.lineno))
        return tree

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "**" or (operator == "%" and isinstance(left, str)):
            raise SecurityError(f"the operator {operator} is not allowed here")
        if operator == "*" and not (isinstance(left, (int, float)) and isinstance(right, (int, float))):
            size = _length_or_value(left) * _length_or_value(right)
            if size > MAX_CHARACTERS:
                raise _LimitExceeded("its output is too long")
        return super().call_binop(context, operator, left, right)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if isinstance(obj, str) and attr in PADDING:
            return False
        return super().is_safe_attribute(obj, attr, value)


def _length_or_value(value: Any) -> Any:
    return len(value) if hasattr(value, "__len__") else value


class _Generation(Extension):
    """`{% generation %}…{% endgeneration %}` marks what the assistant says."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_marked"), [], [], body).set_lineno(line)

    def _marked(self, caller: Callable[[], str]) -> str:
        start, end = self.environment.generation_marks  # type: ignore[attr-defined] # set by ChatTemplate
        return f"{start}{caller()}{end}"


class _PlainNamespace(Namespace):
    """A namespace that refuses names with a leading underscore, which lead to Python's internals."""

    def __init__(*args: Any, **kwargs: Any) -> None:  # positional, so that templates can use namespace(self=…)
        self, values = args[0], dict(*args[1:], **kwargs)
        for name in values:
            _no_underscore(name)
        Namespace.__init__(self, values)

    def __setitem__(self, name: str, value: Any) -> None:
        _no_underscore(name)
        super().__setitem__(name, value)


def _no_underscore(name: str) -> None:
    if name.startswith("_"):
        raise SecurityError(f"the name {name!r} is not allowed here")


def _to_json(value: Any, *, ensure_ascii: bool = False, indent: int | None = None, **more: Any) -> str:
    """Like Jinja's filter, but without HTML escapes: models are trained on plain JSON."""
    if indent is not None and not 0 <= indent <= 16:
        raise SecurityError("this indentation is not allowed here")
    known = {name: more[name] for name in ("separators", "sort_keys") if name in more}
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **known)


def _raise_exception(message: str) -> None:
    raise TemplateError(message)


class ChatTemplate:
    """A compiled template. `marks`: the strings that it puts before and after each `{% generation %}` block."""

    def __init__(self, source: str, variables: Mapping[str, str], *, marks: tuple[str, str]) -> None:
        environment = _Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])
        environment.extend(generation_marks=marks)
        del environment.globals["lipsum"]
        for name in PADDING & environment.filters.keys():
            del environment.filters[name]
        environment.filters["tojson"] = _to_json
        environment.globals |= {"raise_exception": _raise_exception, "namespace": _PlainNamespace, "_tick": _tick}
        self._variables = dict(variables)
        try:
            self._template = environment.from_string(source)
        except (TemplateError, RecursionError) as error:
            raise TrainerError(
                "user_config", f"The base model's chat template cannot be parsed: {error}.", "Use another base model."
            ) from error

    def render(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Any] | None = None,
        add_generation_prompt: bool = False,
        moment: datetime | None = None,
    ) -> str:
        """The conversation as text. `moment`: the template's current time. Raises TrainerError(dataset_invalid)."""
        at = moment or datetime.now()
        values = {
            **self._variables,
            "messages": [dict(message) for message in messages],
            "tools": list(tools) if tools else None,
            "documents": None,
            "add_generation_prompt": add_generation_prompt,
            "strftime_now": at.strftime,
        }
        token = _deadline.set(time.monotonic() + SECONDS)
        try:
            return "".join(_bounded(self._template.generate(values)))
        except TEMPLATE_FAULTS as error:
            raise TrainerError(
                "dataset_invalid",
                f"The base model's chat template refuses a conversation: {error}.",
                "Change the conversation's roles or contents, or choose a base model with another template.",
            ) from error
        finally:
            _deadline.reset(token)


def _bounded(pieces: Iterator[str]) -> Iterator[str]:
    size = 0
    for piece in pieces:
        size += len(piece)
        if size > MAX_CHARACTERS:
            raise _LimitExceeded("its output is too long")
        _tick()
        yield piece
