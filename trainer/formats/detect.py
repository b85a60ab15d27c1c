"""Which family the rows of a file belong to: decided by looking at rows, never at the file's name."""

from dataclasses import dataclass
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


@dataclass(frozen=True)
class Recognition:
    """What the first rows of a file were taken for: `sure` from 0 to 1, `saw` in one sentence."""

    family: Family | None
    sure: float = 0.0
    saw: str = ""


def recognise(rows: list[dict[str, Any]]) -> Recognition:
    """The family most of these rows look like; none when no row looks like any."""
    totals = [sum(family.matches(row) for row in rows) for family in FAMILIES]
    most = max(totals, default=0)
    if not most:
        return Recognition(None)
    family = FAMILIES[totals.index(most)]
    return Recognition(family, most / len(rows), f"{len(rows):,} rows looked at, read as {family.NAME}.")


def other_family(row: dict[str, Any], family: Family) -> Family | None:
    """The family of a row that clearly belongs to another than its file."""
    own = family.matches(row)
    if own >= 1.0:
        return None
    return next((other for other in FAMILIES if other is not family and other.matches(row) > max(own, 0.9)), None)


def mixed(other: Family, family: Family) -> Problem:
    """What to say of a row of another family than its file."""
    fix = f"Put {other.NAME} rows into a file of their own."
    return Problem("", f"mixed formats: {other.NAME} row in a file of {family.NAME} rows", fix)


def unknown_fields(row: dict[str, Any]) -> str:
    """The fields of a row that no family reads, for a sentence."""
    names = ", ".join(f'"{name[:40]}"' for name in list(row)[:8])
    return f"fields {names}" if names else "no fields"
