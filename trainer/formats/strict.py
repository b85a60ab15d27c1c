"""JSON read strictly: what the standard reader passes in silence (NaN, a key twice, NUL) is a problem here."""

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from trainer.formats.problems import Problem

MAX_DEPTH = 100
MAX_DIGITS = 19  # of an integer: 64 bits
MARKS = re.compile(r'"(?:[^"\\]++|\\.)*+"|[\[\]{}]')  # texts, so that what stands in them does not count, and brackets
SUSPICIOUS = re.compile(r"\\u(?:0000|[dD][89a-fA-F])")  # escapes that may hide a NUL or half a character


@dataclass(frozen=True)
class Odd:
    """Stands in a value where something was that JSON does not have, until its place is told."""

    problem: str
    fix: str


TWICE = Odd("the same key twice", "Keep one of the two: which one counts is not defined.")
TOO_LARGE = Odd("number too large", "Write very large numbers as text, in quotes.")
NOT_JSON = Odd("NaN and Infinity are not JSON", "Use null, a number, or a text in quotes.")
NUL = Odd("NUL character", "Remove \\u0000 from this row.")
HALF = Odd("half a character (lone surrogate)", "Write it as it is, or both halves of its \\ud83d\\ude00 form.")


class StrictDecoder:
    """Decodes one JSON value at a time. `found` is the first oddity in it, None when it is clean.

    Oddities are noted and not raised, so that the caller always learns where the value ends.
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
        """The value that begins at `start`, and where it ends; of use where nothing is `found`.

        Raises JSONDecodeError, or RecursionError when it is deep.
        """
        self._odd, self.found = False, None
        value, end = self._decoder.raw_decode(text, start)
        read = text[start:end] if start or end < len(text) else text
        # The cheap tests on the text keep the walks for the few values that need them.
        if self._odd or SUSPICIOUS.search(read):
            self.found = _first_oddity(value)
        if not self.found and read.count("{") + read.count("[") > MAX_DEPTH and _depth(value) > MAX_DEPTH:
            where = f"column {too_deep_at(read) + 1}"
            self.found = Problem(where, f"nested deeper than {MAX_DEPTH} levels", "Flatten this row.")
        return value, end

    def _note(self, odd: Odd) -> Odd:
        self._odd = True
        return odd

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        built = dict(pairs)
        if len(built) < len(pairs):
            keys = [key for key, _ in pairs]
            built[next(key for key in keys if keys.count(key) > 1)] = self._note(TWICE)
        return built

    def _integer(self, digits: str) -> Any:
        return int(digits) if len(digits.lstrip("-")) <= MAX_DIGITS else self._note(TOO_LARGE)

    def _float(self, digits: str) -> Any:
        return self._note(TOO_LARGE) if math.isinf(value := float(digits)) else value

    def _constant(self, name: str) -> Odd:
        return self._note(NOT_JSON)


def parse(text: str) -> Any:
    """One whole JSON text without oddities, else ValueError (or RecursionError)."""
    decoder = StrictDecoder()
    value, end = decoder.decode(text.strip())
    if decoder.found or end < len(text.strip()):
        raise ValueError(decoder.found.problem if decoder.found else "more after the end")
    return value


def too_deep_at(text: str, start: int = 0) -> int:
    """Where a JSON text becomes nested too deeply: a place in the text, for a path to it would be as long."""
    depth = 0
    for mark in MARKS.finditer(text, start):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(mark[0], 0)
        if depth > MAX_DEPTH:
            return mark.start()
    return start


def _first_oddity(value: Any) -> Problem | None:
    """The first thing in the finished value that is none of JSON's, with its path."""
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
    """What stands directly in it, one after the other: of a long list that is too much at once."""
    if isinstance(outer, dict):
        yield from ((f"{path}.{key}" if path else key, inner) for key, inner in outer.items())
    else:
        yield from ((f"{path}[{at}]", inner) for at, inner in enumerate(outer))


def _oddity(value: Any) -> Odd | None:
    """What is odd about the value itself, or about a key of it."""
    if isinstance(value, Odd):
        return value
    if isinstance(value, dict):
        return next((odd for key in value if (odd := _odd_text(key))), None)
    return _odd_text(value) if isinstance(value, str) else None


def _odd_text(text: str) -> Odd | None:
    if "\0" in text:
        return NUL
    return HALF if any("\ud800" <= character <= "\udfff" for character in text) else None


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
