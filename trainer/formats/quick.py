"""Fast JSON decoding, with a check for each value that the strict reader would return the same."""

import re
from typing import Any

import orjson

from trainer.formats.strict import MAX_DEPTH

NEEDS_STRICT = object()  # returned when only the strict reader can decide
LOOSE_KEY = re.compile(rb'"[ \t\r\n]+:')
NUL = b"\\u0000"
INT_LIMIT = 10**19  # integers beyond it may have more digits than the strict reader allows
EXACT_FLOAT_LIMIT = 1e15  # a larger float may have been an integer of more than 64 bits


def decode(raw: bytes) -> Any:
    """The value in `raw` exactly as the strict reader returns it, or NEEDS_STRICT.

    orjson itself rejects NaN, invalid UTF-8 and lone surrogates. It keeps only the last of duplicate keys, so the keys
    are counted and compared with the places where a key may end. It reads long integers as floats, so no float may
    be that large. Depth and NUL are checked separately.
    """
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return NEEDS_STRICT
    if type(value) is not dict or NUL in raw or LOOSE_KEY.search(raw):
        return NEEDS_STRICT
    return value if _count_keys(value, 1) == raw.count(b'":') else NEEDS_STRICT


def _count_keys(value: Any, depth: int) -> int:
    """The number of keys in a value; a large negative number if anything is odd."""
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
            count += _count_keys(inner, depth + 1)
        elif abs(inner) >= (EXACT_FLOAT_LIMIT if kind is float else INT_LIMIT) or (kind is float and not inner):
            return -(10**12)
    return count
