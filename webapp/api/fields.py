"""Reads a JSON body and its fields, and says which one is wrong and why."""

import json
import math
import re
from collections.abc import Collection
from difflib import get_close_matches
from typing import Any, NoReturn

from django.http import HttpRequest

from webapp.api.wire import ApiError

MOST_PAIRS, LONGEST_KEY, LONGEST_VALUE = 16, 64, 512  # of metadata, as the client's documentation has it
HALF_PAIR = re.compile("[\ud800-\udfff]")
NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")  # as JSON writes it; behind another backslash it is only text


def bad(param: str | None, text: str, code: str = "invalid_value") -> NoReturn:
    raise ApiError(400, text, param=param, code=code)


def json_body(request: HttpRequest) -> "Fields":
    """The body, which must be a JSON object; an empty body is an empty one."""
    raw, kind = request.body, request.content_type or ""
    if raw and kind != "application/json":
        text = f"The body must be JSON with `Content-Type: application/json`, not {kind[:100]!r}."
        raise ApiError(415, text, code="unsupported_content_type")
    try:
        values = parse_json(raw.decode("utf-8-sig")) if raw else {}
    except UnicodeDecodeError:
        bad(None, "The body is not UTF-8.", "invalid_json")
    except ValueError as error:
        bad(None, f"The body is not JSON: {error}.", "invalid_json")
    if not isinstance(values, dict):
        bad(None, "The body must be a JSON object.", "invalid_json")
    return Fields(values)


def parse_json(text: str) -> Any:
    """What JSON can hold and a database can keep. Raises ValueError for more: NaN, 1e999, lone surrogates, NUL."""
    try:
        values = json.loads(text, parse_constant=_no_number, parse_float=_finite)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if "\\u" in text:  # nothing else brings them in
        again = json.dumps(values, ensure_ascii=False)
        if HALF_PAIR.search(again):
            raise ValueError("it has half of a surrogate pair")
        if NUL.search(again):
            raise ValueError("it has a NUL character")
    return values


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON")


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"{text[:20]} is too large a number")
    return value


class Fields:
    """The fields of an object; `at` is where it lies in the body. None counts as not sent."""

    def __init__(self, values: dict[str, Any], at: str = "") -> None:
        self.values, self.at = values, at

    def path(self, name: str) -> str:
        return f"{self.at}.{name}" if self.at else name

    def has(self, name: str) -> bool:
        return self.values.get(name) is not None

    def bad(self, name: str, text: str) -> NoReturn:
        """Refuse the field; `text` goes on after its name, such as "must be a string"."""
        bad(self.path(name), f"`{self.path(name)}` {text}.")

    def only(self, *known: str, hint: str = "") -> None:
        """Refuse a field that is none of these: one that is misspelt would change nothing, and nobody would know.

        `hint` is a sentence for a field that is like none of them.
        """
        for name in filter(self.has, self.values):
            if name in known:
                continue
            param = self.path(name[:100])
            near = get_close_matches(name[:100], known, n=1)
            more = f"Did you mean '{self.path(near[0])}'?" if near else hint
            bad(param, f"Unknown parameter: '{param}'. {more}".strip(), "unknown_parameter")

    def required(self, name: str) -> Any:
        if not self.has(name):
            bad(self.path(name), f"`{self.path(name)}` is missing.", "missing_required_parameter")
        return self.values[name]

    def text(self, name: str, *, most: int = 1_000_000) -> str:
        value = self.required(name)
        if not isinstance(value, str):
            self.bad(name, "must be a string")
        if len(value) > most:
            self.bad(name, f"has more than {most} characters")
        return value

    def whole(self, name: str, *, lowest: int, highest: int) -> int:
        value = self.required(name)
        if not isinstance(value, int) or isinstance(value, bool):
            self.bad(name, "must be a whole number")
        if not lowest <= value <= highest:
            self.bad(name, f"must be from {lowest} to {highest}")
        return value

    def number(self, name: str, *, lowest: float, highest: float) -> float:
        value = self.required(name)
        if not isinstance(value, int | float) or isinstance(value, bool):
            self.bad(name, "must be a number")
        if not lowest <= value <= highest:
            self.bad(name, f"must be from {lowest:g} to {highest:g}")
        return float(value)

    def flag(self, name: str) -> bool:
        value = self.required(name)
        if not isinstance(value, bool):
            self.bad(name, "must be true or false")
        return value

    def choice(self, name: str, options: Collection[str]) -> str:
        value = self.text(name)
        if value not in options:
            self.bad(name, f"must be one of {', '.join(options)}")
        return value

    def items(self, name: str) -> list[Any]:
        value = self.required(name)
        if not isinstance(value, list):
            self.bad(name, "must be an array")
        return value

    def inside(self, name: str) -> "Fields":
        """The object in this field; an empty one when it was not sent."""
        value = self.values.get(name)
        if value is not None and not isinstance(value, dict):
            self.bad(name, "must be an object")
        return Fields(value or {}, self.path(name))

    def metadata(self, name: str = "metadata") -> dict[str, str]:
        pairs = self.inside(name).values
        if len(pairs) > MOST_PAIRS:
            self.bad(name, f"has more than {MOST_PAIRS} pairs")
        for key, value in pairs.items():
            if not isinstance(value, str):
                self.bad(f"{name}.{key[:LONGEST_KEY]}", "must be a string")
            if len(key) > LONGEST_KEY or len(value) > LONGEST_VALUE:
                self.bad(name, f"has a key over {LONGEST_KEY} or a value over {LONGEST_VALUE} characters")
        return pairs
