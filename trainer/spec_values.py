"""Values of a spec: their metadata, reading them from plain data, and issues with them."""

import difflib
import json
import math
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args, get_origin

from trainer.errors import TrainerError

# Names that people and other tools use for some of the choices.
VALUE_ALIASES = {
    **dict.fromkeys(("4bit", "4-bit", "4", "int4", "fp4", "qlora"), "nf4"),
    **dict.fromkeys(("8bit", "8-bit", "8", "llm_int8"), "int8"),
    **dict.fromkeys(("bf16", "torch.bfloat16"), "bfloat16"),
    **dict.fromkeys(("fp16", "half", "16", "torch.float16"), "float16"),
    **dict.fromkeys(("fp32", "full", "32", "float", "torch.float32"), "float32"),
    **dict.fromkeys(("adam", "adamw_torch", "adamw_hf", "adamw_torch_fused"), "adamw"),
    **dict.fromkeys(("adam8bit", "adamw8bit", "adamw_bnb_8bit"), "adamw_8bit"),
    "cosine_with_restarts": "cosine",
    "constant_with_warmup": "constant",
    "assistant": "answers",
}


@dataclass(frozen=True)
class Option:
    """Metadata of a value: its meaning in one sentence, unit, and inclusive limits."""

    meaning: str
    unit: str = ""
    low: float | None = None
    high: float | None = None
    common: bool = False  # shown to everyone, not only under advanced settings


def option(default: Any, meaning: str, **limits: Any) -> Any:
    """A dataclass field with its `Option` as metadata."""
    return field(default=default, metadata={"option": Option(meaning, **limits)})


@dataclass(frozen=True)
class Issue:
    """A problem of a spec: the field's path (`lora.r`), what is wrong, and how to fix it.

    `beside`: the path of another value that this one conflicts with. If that one cannot be read, the issue is dropped.
    """

    path: str
    problem: str
    fix: str
    beside: str = ""

    def __str__(self) -> str:
        return f"{self.text} {self.fix}"

    @property
    def text(self) -> str:
        """The problem with its path."""
        return f"{self.path}: {self.problem}" if self.path else self.problem


def refusal(issues: Sequence[Issue]) -> TrainerError:
    """One error for all issues of a spec. If there are several, its text includes the fix of each."""
    if len(issues) == 1:
        return TrainerError("user_config", issues[0].text, issues[0].fix)
    return TrainerError("user_config", "\n".join(map(str, issues)), "Change each of them.")


def did_you_mean(names: Iterable[object], known: Iterable[str]) -> str:
    """A hint with the known names closest to `names`; empty if there are none."""
    choices, near = list(known), []
    for name in (str(one)[:80] for one in names):
        alias = VALUE_ALIASES.get(name.lower(), "")
        near += [alias] if alias in choices else difflib.get_close_matches(name, choices, n=1)
    return f"Did you mean {', '.join(dict.fromkeys(near))}? " if near else ""


class Pattern(dict[str, float]):
    """Numbers by module name. Never mutated, so that specs can be hashed."""

    def __hash__(self) -> int:  # type: ignore[override] # a dict has none
        return hash(frozenset(self.items()))


def coerce(value: Any, hint: Any) -> Any:
    """`value` converted to the field's type. The text of a ValueError is the fix.

    Numbers may be text, as YAML reads 2e-4 as text.
    """
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise ValueError(f"{did_you_mean([value], get_args(hint))}Choose one of {', '.join(get_args(hint))}.")
        return value
    if hint is bool:
        return _coerce_bool(value)
    if hint in (int, float):
        return _coerce_number(value, hint)
    if hint is str:
        if not isinstance(value, str):
            raise ValueError("Write text.")
        return value
    return _coerce_many(value, hint)


def _coerce_many(value: Any, hint: Any) -> Any:
    if get_origin(hint) is dict:
        if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
            raise ValueError("Write name: number, one for each module.")
        try:
            return Pattern({name: _coerce_number(number, get_args(hint)[1]) for name, number in value.items()})
        except ValueError as error:
            raise ValueError(f"{error} One for each module, such as q_proj: 8.") from None
    if isinstance(value, str) and hint == str | tuple[str, ...]:
        return _names(value)
    if hint == tuple[int, ...]:
        if not isinstance(value, (list, tuple)):
            raise ValueError("Write a list of whole numbers.")
        try:
            return tuple(_coerce_number(one, int) for one in value)
        except ValueError:
            raise ValueError("Write whole numbers, such as 0, 1, 2.") from None
    if isinstance(value, (list, tuple)) and all(isinstance(one, str) for one in value):
        return tuple(value)
    raise ValueError("Write a list of strings.")


def _names(text: str) -> str | tuple[str, ...]:
    """Split names at spaces and commas. A single plain word stays text: it is a group, perhaps misspelt."""
    words = text.strip().removeprefix("[").removesuffix("]").replace(",", " ").split()
    is_list = len(words) != 1 or "," in text or "_" in words[0] or any(map(str.isdigit, words[0]))
    return tuple(words) if is_list else text.strip()


def _coerce_bool(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("Write true or false.")
    return value


def _coerce_number(value: Any, kind: type[int] | type[float]) -> int | float:
    wanted = "Write a whole number." if kind is int else "Write a number."
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError(wanted)
    try:
        number = float(value)
    except ValueError:
        raise ValueError(wanted) from None
    if not math.isfinite(number) or (kind is int and number != int(number)):
        raise ValueError(wanted)
    return kind(number)


def shown(value: Any) -> str:
    """A value as a spec writes it, shortened."""
    return textwrap.shorten(json.dumps(value, ensure_ascii=False, default=str), 60, placeholder=" …")


def as_written(number: float) -> str:
    """A limit in readable form: 10,000,000, not 1e+07."""
    return f"{number:,.0f}" if abs(number) >= 1e4 else f"{number:g}"


def _as_given(number: float) -> str:
    """A value as the user wrote it: a form reads 9 as 9.0."""
    return str(int(number)) if isinstance(number, float) and number.is_integer() else str(number)


def limit_issues(path: str, value: Any, beside: Option) -> list[Issue]:
    """Issues with a number, or with any of several, outside its limits."""
    if isinstance(value, dict):
        value = value.values()
    for one in value if isinstance(value, tuple) or not isinstance(value, (str, int, float)) else (value,):
        if beside.low is not None and one < beside.low:
            return [Issue(path, f"{_as_given(one)} is too low.", f"Use at least {as_written(beside.low)}.")]
        if beside.high is not None and one > beside.high:
            return [Issue(path, f"{_as_given(one)} is too high.", f"Use at most {as_written(beside.high)}.")]
    return []


def plain(value: Any) -> Any:
    """The value as plain data for YAML."""
    if isinstance(value, tuple):
        return list(value)
    return dict(value) if isinstance(value, Pattern) else value
