"""JSON read fast, with a proof for each value that nothing a strict reader minds was lost on the way."""

import re
from typing import Any

import orjson

from trainer.formats.strict import MAX_DEPTH

ODD = object()  # what only a strict reader can tell about
LOOSE_KEY = re.compile(rb'"[ \t\r\n]+:')
NUL = b"\\u0000"
MOST = 10**19  # of an integer: beyond it, more digits than the strict reader takes
EXACT = 1e15  # a float as large may have been written as an integer of more than 64 bits


def decode(raw: bytes) -> Any:
    """The value in `raw` as the strict reader has it, or ODD when that has to be asked.

    orjson refuses NaN, bytes that are not UTF-8 and lone surrogates by itself. It keeps only the last of two equal
    keys: so the keys it kept must be as many as the places where a key may end. It reads long integers as floats: so
    no float may be as large as they are. What is left is the depth, and NUL.
    """
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return ODD
    if type(value) is not dict or NUL in raw or LOOSE_KEY.search(raw):
        return ODD
    return value if _keys(value, 1) == raw.count(b'":') else ODD


def _keys(value: Any, depth: int) -> int:
    """How many keys there are in it, -infinity where something is odd."""
    if depth > MAX_DEPTH:
        return -(10**12)
    if type(value) is dict:
        count, inside = len(value), value.values()
    else:
        count, inside = 0, value
    for inner in inside:
        kind = type(inner)
        if kind is str or inner is None or kind is bool:
            continue
        if kind is dict or kind is list:
            count += _keys(inner, depth + 1)
        elif abs(inner) >= (EXACT if kind is float else MOST) or (kind is float and not inner):
            return -(10**12)
    return count
