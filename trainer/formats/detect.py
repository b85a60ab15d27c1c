"""Which family the rows of a file belong to: decided by looking at rows, never at the file's name."""

from typing import Any, Protocol

from trainer.formats import alpaca, kto, messages, plain_text, preference, prompt_completion
from trainer.formats.canonical import Content, Kind
from trainer.formats.problems import Problem


class Family(Protocol):
    """What a format module offers. A new format is one such module in FAMILIES."""

    NAME: str
    KIND: Kind
    FIELDS: frozenset[str]  # of a row; others are passed over and counted
    MESSAGE_FIELDS: frozenset[str]  # of a message inside it

    def matches(self, row: dict[str, Any]) -> float: ...
    def to_content(self, row: dict[str, Any]) -> Content: ...


# Where a row looks like two, the first counts: preference data often repeats the chosen conversation in "messages".
FAMILIES: tuple[Family, ...] = (preference, kto, alpaca, messages, prompt_completion, plain_text)
LOOK_AT = 100  # rows

FIX_UNKNOWN = (
    'Each row needs "messages" with role and content, "instruction" and "output" (alpaca), "prompt" and "completion", '
    '"text", "chosen" and "rejected", or "prompt", "completion" and "label". Rename or convert the fields.'
)


def best_family(rows: list[dict[str, Any]]) -> Family | None:
    """The family most of these rows look like; None when no row looks like any."""
    totals = [sum(family.matches(row) for row in rows) for family in FAMILIES]
    return FAMILIES[totals.index(max(totals))] if max(totals, default=0) > 0 else None


def other_family(row: dict[str, Any], family: Family) -> Problem | None:
    """The problem of a row that clearly belongs to another family than its file."""
    own = family.matches(row)
    for other in FAMILIES:
        if other is not family and other.matches(row) > max(own, 0.9):
            fix = f"Put {other.NAME} rows into a file of their own."
            return Problem("", f"mixed formats: {other.NAME} row in a file of {family.NAME} rows", fix)
    return None


def unknown_fields(row: dict[str, Any]) -> str:
    """The fields of a row that no family reads, for a sentence."""
    names = ", ".join(f'"{name[:40]}"' for name in list(row)[:8])
    return f"fields {names}" if names else "no fields"
