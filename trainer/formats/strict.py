"""JSON read strictly: what the standard reader passes in silence (NaN, a key twice, NUL) is a problem here."""

import json
import math
import re
from collections.abc import Iterator
from typing import Any

from trainer.formats.problems import Problem

MAX_DEPTH = 100
MAX_DIGITS = 19  # of an integer: 64 bits
SUSPICIOUS = re.compile(r"\\u(?:0000|[dD][89a-fA-F])")  # escapes that may hide a NUL or half a character


class StrictDecoder:
    """Decodes one JSON value at a time. `found` is the first oddity in it, None when it is clean.

    Oddities are noted and not raised, so that the caller always learns where the value ends.
    """

    def __init__(self) -> None:
        self.found: Problem | None = None
        self._decoder = json.JSONDecoder(
            object_pairs_hook=self._object,
            parse_int=self._integer,
            parse_float=self._float,
            parse_constant=self._constant,
        )

    def decode(self, text: str, start: int = 0) -> tuple[Any, int]:
        """The value that begins at `start`, and where it ends. Raises JSONDecodeError, or RecursionError when deep."""
        self.found = None
        value, end = self._decoder.raw_decode(text, start)
        if self.found is None:
            self.found = _hidden_oddity(value, text[start:end] if start or end < len(text) else text)
        return value, end

    def _note(self, field: str, problem: str, fix: str) -> None:
        self.found = self.found or Problem(field, problem, fix)

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        built = dict(pairs)
        if len(built) < len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in keys if keys.count(key) > 1)
            self._note(twice[:80], "the same key twice", "Keep one of the two: which one counts is not defined.")
        return built

    def _integer(self, digits: str) -> int:
        if len(digits.lstrip("-")) > MAX_DIGITS:
            self._note(f"{digits[:20]}…", "number too large", "Write very large numbers as text, in quotes.")
            return 0
        return int(digits)

    def _float(self, digits: str) -> float:
        value = float(digits)
        if math.isinf(value):
            self._note(digits[:20], "number too large", "Write very large numbers as text, in quotes.")
        return value

    def _constant(self, name: str) -> float:
        self._note(name, "NaN and Infinity are not JSON", "Use null, a number, or a text in quotes.")
        return 0.0


def parse(text: str) -> Any:
    """One whole JSON text without oddities, else ValueError (or RecursionError)."""
    decoder = StrictDecoder()
    value, end = decoder.decode(text.strip())
    if decoder.found or end < len(text.strip()):
        raise ValueError(decoder.found.problem if decoder.found else "more after the end")
    return value


def _hidden_oddity(value: Any, text: str) -> Problem | None:
    """What only shows in the finished value. The cheap tests on the text keep the walk for the few that need it."""
    if text.count("{") + text.count("[") > MAX_DEPTH and _depth(value) > MAX_DEPTH:
        return Problem("", f"nested deeper than {MAX_DEPTH} levels", "Flatten this row.")
    if not SUSPICIOUS.search(text):
        return None
    for inner in _texts(value):
        if "\0" in inner:
            return Problem("", "NUL character", "Remove \\u0000 from this row.")
        if any("\ud800" <= character <= "\udfff" for character in inner):
            fix = "Write the character itself, or both halves of its \\ud83d\\ude00 form."
            return Problem("", "half a character (lone surrogate)", fix)
    return None


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


def _texts(value: Any) -> Iterator[str]:
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            yield one
        elif isinstance(one, dict):
            yield from one
        waiting.extend(_inside(one))
