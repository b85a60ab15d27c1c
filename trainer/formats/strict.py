"""Strict JSON: rejects what Python's reader accepts silently (NaN, duplicate keys, NUL)."""

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from trainer.formats.problems import Problem

MAX_DEPTH = 100
MAX_DIGITS = 19  # of a 64-bit integer
MARKS = re.compile(r'"(?:[^"\\]++|\\.)*+"|[\[\]{}]')  # strings, so that brackets in them do not count, and brackets
SUSPICIOUS = re.compile(r"\\u(?:0000|[dD][89a-fA-F])")  # escapes that may hide a NUL or a lone surrogate


@dataclass(frozen=True)
class Oddity:
    """Placeholder in a decoded value for something that is not JSON, until its path is reported."""

    problem: str
    fix: str


DUPLICATE_KEY = Oddity("the same key twice", "Keep one of the two: which one counts is not defined.")
TOO_LARGE = Oddity("number too large", "Write very large numbers as text, in quotes.")
NOT_JSON = Oddity("NaN and Infinity are not JSON", "Use null, a number, or a text in quotes.")
NUL = Oddity("NUL character", "Remove \\u0000 from this row.")
LONE_SURROGATE = Oddity(
    "half a character (lone surrogate)", "Write it as it is, or both halves of its \\ud83d\\ude00 form."
)


class StrictDecoder:
    """Decodes one JSON value at a time. `found` is the first problem in it, None if there is none.

    Problems are noted rather than raised, so that the caller always learns where the value ends.
    """

    def __init__(self) -> None:
        self.found: Problem | None = None
        self._odd = False
        self._decoder = json.JSONDecoder(
            object_pairs_hook=self._object,
            parse_int=self._integer,
            parse_float=self._float,
            parse_constant=self._constant,
        )

    def decode(self, text: str, start: int = 0) -> tuple[Any, int]:
        """The value that begins at `start`, and where it ends. Use it only if nothing is `found`.

        Raises JSONDecodeError, or RecursionError for deep nesting.
        """
        self._odd, self.found = False, None
        value, end = self._decoder.raw_decode(text, start)
        read = text[start:end] if start or end < len(text) else text
        # Cheap tests on the text avoid walking through most values.
        if self._odd or SUSPICIOUS.search(read):
            self.found = _first_oddity(value)
        if not self.found and read.count("{") + read.count("[") > MAX_DEPTH and _depth(value) > MAX_DEPTH:
            where = f"column {too_deep_at(read) + 1}"
            self.found = Problem(where, f"nested deeper than {MAX_DEPTH} levels", "Flatten this row.")
        return value, end

    def _note(self, odd: Oddity) -> Oddity:
        self._odd = True
        return odd

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        built = dict(pairs)
        if len(built) < len(pairs):
            keys = [key for key, _ in pairs]
            built[next(key for key in keys if keys.count(key) > 1)] = self._note(DUPLICATE_KEY)
        return built

    def _integer(self, digits: str) -> Any:
        return int(digits) if len(digits.lstrip("-")) <= MAX_DIGITS else self._note(TOO_LARGE)

    def _float(self, digits: str) -> Any:
        return self._note(TOO_LARGE) if math.isinf(value := float(digits)) else value

    def _constant(self, name: str) -> Oddity:
        return self._note(NOT_JSON)


def parse(text: str) -> Any:
    """One complete JSON text. Raises ValueError or RecursionError."""
    decoder = StrictDecoder()
    value, end = decoder.decode(text.strip())
    if decoder.found or end < len(text.strip()):
        raise ValueError(decoder.found.problem if decoder.found else "more after the end")
    return value


def too_deep_at(text: str, start: int = 0) -> int:
    """The offset where a JSON text is nested too deeply; a path to it would be too long to show."""
    depth = 0
    for mark in MARKS.finditer(text, start):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(mark[0], 0)
        if depth > MAX_DEPTH:
            return mark.start()
    return start


def _first_oddity(value: Any) -> Problem | None:
    """The first oddity in a value, with its path."""
    waiting = [iter([("", value)])]
    while waiting:
        path, one = next(waiting[-1], ("", waiting))
        if one is waiting:
            waiting.pop()
        elif odd := _oddity(one):
            return Problem(path[-200:], odd.problem, odd.fix)
        elif isinstance(one, (dict, list)):
            waiting.append(_with_paths(one, path))
    return None


def _with_paths(outer: dict[str, Any] | list[Any], path: str) -> Iterator[tuple[str, Any]]:
    """The members of a value, lazily: lists can be long."""
    if isinstance(outer, dict):
        yield from ((f"{path}.{key}" if path else key, inner) for key, inner in outer.items())
    else:
        yield from ((f"{path}[{at}]", inner) for at, inner in enumerate(outer))


def _oddity(value: Any) -> Oddity | None:
    """The oddity of the value itself, or of one of its keys."""
    if isinstance(value, Oddity):
        return value
    if isinstance(value, dict):
        return next((odd for key in value if (odd := _odd_text(key))), None)
    return _odd_text(value) if isinstance(value, str) else None


def _odd_text(text: str) -> Oddity | None:
    if "\0" in text:
        return NUL
    return LONE_SURROGATE if any("\ud800" <= character <= "\udfff" for character in text) else None


def _depth(value: Any) -> int:
    depth, level = 0, [value]
    while level:
        depth += 1
        level = [inner for outer in level for inner in _inside(outer)]
    return depth - 1


def _inside(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []
