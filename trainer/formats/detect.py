"""Which family the rows of a file belong to: decided by looking at rows, never at the file's name."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from trainer.formats import (
    alpaca,
    chains,
    dialogue,
    kto,
    messages,
    pairs,
    plain_text,
    preference,
    preferred_output,
    prompt_completion,
    ranked,
    sharegpt,
)
from trainer.formats.canonical import Content
from trainer.formats.family import Family, never, nothing
from trainer.formats.problems import BadRow, Problem

# Where a row looks like two, the first counts: preference data often repeats the chosen conversation in "messages".
FAMILIES: tuple[Family, ...] = (
    chains.FAMILY,
    preferred_output.FAMILY,
    ranked.FAMILY,
    preference.FAMILY,
    kto.FAMILY,
    alpaca.FAMILY,
    dialogue.FAMILY,
    messages.FAMILY,
    sharegpt.FAMILY,
    prompt_completion.FAMILY,
    *pairs.FAMILIES,
    plain_text.FAMILY,
)
LOOK_AT = 100  # rows
MOST_LAYOUTS = 3  # of one family, named
ENOUGH = 0.5  # less than half of what a family needs is no sign of it
AMBIGUOUS = 0.8  # how sure one can be at most where the rows hold a second format
FIX_UNKNOWN = (
    'Each row needs "messages" with role and content, "instruction" and "output" (alpaca), "prompt" and "completion", '
    '"text", "chosen" and "rejected", or "prompt", "completion" and "label". '
    "Say which of your columns holds what, or rename them."
)


@dataclass(frozen=True)
class Recognition:
    """What some rows of a file were taken for. family: None where they are of no known format.

    sure: 0 to 1. saw: one or two sentences on what was seen. repairs: sentences on what is put right in every row.
    """

    family: Family | None
    sure: float = 0.0
    saw: str = ""
    repairs: tuple[str, ...] = ()


def chosen(family: Family | None) -> Recognition:
    """What a person has said that the rows are; nothing without a family."""
    return Recognition(family, 1.0, f"{family.saw}.") if family else Recognition(None)


def recognise(rows: Sequence[dict[str, Any]]) -> Recognition:
    """What these rows, the first of a file, are. Names in capitals or with spaces count too, as a repair."""
    found = _recognise(rows)
    if found.sure >= AMBIGUOUS or not (names := _usual_names(rows)):
        return found
    other = _recognise([_renamed(row, names) for row in rows])
    if other.family is None or other.sure <= found.sure:
        return found
    fields = other.family.fields_of(_renamed(rows[0], names))
    read = {as_is: usual for as_is, usual in names.items() if usual in fields}
    said = (f'The column "{as_is[:40]}" is read as "{usual}".' for as_is, usual in read.items())
    return replace(other, family=_in_other_names(other.family, read), repairs=tuple(said))


def other_family(row: dict[str, Any], family: Family) -> Family | None:
    """The family of a row that clearly belongs to another than its file."""
    own = family.matches(row)
    if own >= 1:
        return None
    return next((other for other in FAMILIES if other.name != family.name and other.matches(row) > max(own, 0.9)), None)


def mixed(other: Family, family: Family) -> Problem:
    """What to say of a row of another family than its file."""
    fix = f"Put {other.name} rows into a file of their own."
    return Problem("", f"mixed formats: {other.name} row in a file of {family.name} rows", fix)


def unknown_fields(row: dict[str, Any]) -> str:
    """The fields of a row that no family reads, for a sentence."""
    names = ", ".join(f'"{name[:40]}"' for name in list(row)[:8])
    return f"fields {names}" if names else "no fields"


def _recognise(rows: Sequence[dict[str, Any]]) -> Recognition:
    totals = [sum(family.matches(row) for row in rows) for family in FAMILIES]
    best = max(totals, default=0.0)
    family = FAMILIES[totals.index(best)]
    if not rows or not best:
        return Recognition(None, 0.0, f"No known format: {unknown_fields(rows[0]) if rows else 'no rows'}.")
    others = Counter(other.name for row in rows if (other := other_family(row, family)))
    if best + others.total() < ENOUGH * len(rows):
        return Recognition(None, 0.0, f"No known format: {unknown_fields(rows[0])}.")
    whole = sum(family.matches(row) >= 1 for row in rows)
    counted = f"All {len(rows):,}" if whole == len(rows) else f"{whole:,} of the {len(rows):,}"
    hold = "The only row holds" if len(rows) == 1 else f"{counted} rows looked at hold"
    saw = f"{hold} {_layouts(rows, family)}."
    if others:
        saw += f" Others are of other formats: {', '.join(f'{name} ({n:,})' for name, n in others.most_common())}."
    sure = best / len(rows)
    if beside := list(_beside(rows, family, totals)):
        names = " and ".join(f'"{name}"' for name in beside)
        saw += f" They hold {names} too, which could be read by itself and is passed over."
        sure = min(sure, AMBIGUOUS)
    return Recognition(family, round(sure, 2), saw)


def _layouts(rows: Sequence[dict[str, Any]], family: Family) -> str:
    """What its rows hold, by their own columns; with numbers where they are not all alike."""
    if family.layout is None:
        return family.saw
    counts = Counter(family.layout(row) for row in rows if family.matches(row) >= 1)
    if len(counts) < 2:
        return next(iter(counts), family.saw)
    return " or ".join(f"{said}: {times:,}" for said, times in counts.most_common(MOST_LAYOUTS))


def _beside(rows: Sequence[dict[str, Any]], family: Family, totals: list[float]) -> Iterator[str]:
    """The columns that make rows look like one more family."""
    there = frozenset(rows[0])
    said: set[str] = set()
    for other, total in zip(FAMILIES, totals, strict=True):
        extra = (other.fields & there) - family.fields - {"input", "system", "tools"}
        if other is not family and total >= AMBIGUOUS * len(rows) and extra - said:
            said |= extra
            yield sorted(extra)[0]


def _usual_names(rows: Sequence[dict[str, Any]]) -> dict[str, str]:
    """The names that become others in small letters with underscores, where no other column has those already."""
    there = {name for row in rows for name in row}
    usual = {name: name.strip().lower().replace(" ", "_").replace("-", "_") for name in there}
    changed = {name: new for name, new in usual.items() if name != new and new not in there}
    return {name: new for name, new in sorted(changed.items()) if list(changed.values()).count(new) == 1}


def _renamed(row: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    return {names.get(name, name): value for name, value in row.items()}


def _in_other_names(family: Family, names: dict[str, str]) -> Family:
    """The family for rows whose columns go by these names."""
    written = {usual: as_is for as_is, usual in names.items()}

    def read(row: dict[str, Any]) -> Content:
        try:
            return family.to_content(_renamed(row, names))
        except BadRow as bad:
            raise bad.called(written) from None

    return replace(
        family,
        fields=family.fields | names.keys(),
        matches=lambda row: family.matches(_renamed(row, names)),
        read=read,
        layout=None,
        reads=nothing,
        ignored=lambda row: family.ignored(_renamed(row, names)),
        repaired=lambda row: family.repaired(_renamed(row, names)),
        usual=never,
    )
