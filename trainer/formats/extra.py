"""The other columns of an upload: short values that stay beside a row as tags and that no model reads."""

from collections.abc import Set as AbstractSet
from math import isfinite
from typing import Any

Extra = dict[str, Any]  # name of a column -> text, number, or true or false

MOST_COLUMNS = 32
LONGEST_NAME = 60
LONGEST_TEXT = 200  # longer ones are texts, not tags
MOST_CHARACTERS = 4000  # of all texts of a row
LARGEST = 2**63


def extra_of(row: dict[str, Any], read: AbstractSet[str]) -> Extra:
    """What a row holds beside the fields that are `read`, as far as it is short and single."""
    found: Extra = {}
    if row.keys() <= read:
        return found
    room = MOST_CHARACTERS
    for name, value in row.items():
        if name in read or not _is_tag(value) or not 0 < len(name) <= LONGEST_NAME or "\0" in name:
            continue
        room -= len(name) + (len(value) if isinstance(value, str) else 8)
        if room < 0 or len(found) == MOST_COLUMNS:
            break
        found[name] = value
    return found


def _is_tag(value: object) -> bool:
    if isinstance(value, str):
        return len(value) <= LONGEST_TEXT and "\0" not in value and bool(value) and not value.isspace()
    if isinstance(value, float):
        return isfinite(value)
    return isinstance(value, int) and -LARGEST <= value < LARGEST  # true and false are integers too


def as_text(value: Any) -> str:
    """A value as people type it and look for it, the same out of a table and out of JSON."""
    return str(value).lower() if isinstance(value, bool) else str(value)
