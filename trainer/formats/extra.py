"""Extra columns of an upload: short values kept beside a row as tags, which no model reads."""

from collections.abc import Set as AbstractSet
from math import isfinite
from typing import Any

Extra = dict[str, Any]  # column name -> text, number or boolean

MAX_COLUMNS = 32
LONGEST_NAME = 60
LONGEST_TEXT = 200  # longer values are texts rather than tags
MAX_CHARACTERS = 4000  # of all extra values of a row
LARGEST = 2**63


def extra_of(row: dict[str, Any], read: AbstractSet[str]) -> Extra:
    """The short scalar values of a row outside the fields in `read`."""
    found: Extra = {}
    if row.keys() <= read:
        return found
    room = MAX_CHARACTERS
    for name, value in row.items():
        if name in read or not _is_tag(value) or not 0 < len(name) <= LONGEST_NAME or "\0" in name:
            continue
        room -= len(name) + (len(value) if isinstance(value, str) else 8)
        if room < 0 or len(found) == MAX_COLUMNS:
            break
        found[name] = value
    return found


def _is_tag(value: object) -> bool:
    if isinstance(value, str):
        return len(value) <= LONGEST_TEXT and "\0" not in value and bool(value) and not value.isspace()
    if isinstance(value, float):
        return isfinite(value)
    return isinstance(value, int) and -LARGEST <= value < LARGEST  # includes booleans


def as_text(value: Any) -> str:
    """A value as people type it in a search; the same for values from tables and from JSON."""
    return str(value).lower() if isinstance(value, bool) else str(value)
