"""Detects which family the rows of a file belong to, from the rows alone and never from the file's name."""

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
from trainer.formats.family import Family, no_fast_path, nothing
from trainer.formats.problems import BadRow, Problem

# The first match wins: preference data often repeats the chosen conversation in "messages".
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
SAMPLE_ROWS = 100  # rows
MAX_LAYOUTS = 3  # named per family
ENOUGH = 0.5  # below half a family's required fields, a row does not count as that family
AMBIGUOUS = 0.8  # upper limit of the confidence if the rows match a second family
FIX_UNKNOWN = (
    'Each row needs "messages" with role and content, "instruction" and "output" (alpaca), "prompt" and "completion", '
    '"text", "chosen" and "rejected", or "prompt", "completion" and "label". '
    "Say which of your columns holds what, or rename them."
)


@dataclass(frozen=True)
class Recognition:
    """What some rows of a file were recognised as. family: None if the format is unknown.

    sure: confidence, 0 to 1. saw: one or two sentences on what the rows hold. repairs: what is corrected in every
    row.
    """

    family: Family | None
    sure: float = 0.0
    saw: str = ""
    repairs: tuple[str, ...] = ()


def recognition_of(family: Family | None) -> Recognition:
    """The recognition of a file whose family the user has given; empty without one."""
    return Recognition(family, 1.0, f"{family.saw}.") if family else Recognition(None)


def recognise(rows: Sequence[dict[str, Any]]) -> Recognition:
    """What these first rows of a file are. Names with capitals or spaces are accepted, and noted as a repair."""
    found = _recognise(rows)
    if found.sure >= AMBIGUOUS or not (names := _normalised_names(rows)):
        return found
    other = _recognise([_renamed(row, names) for row in rows])
    if other.family is None or other.sure <= found.sure:
        return found
    fields = other.family.fields_of(_renamed(rows[0], names))
    read = {as_is: usual for as_is, usual in names.items() if usual in fields}
    repairs = (f'The column "{as_is[:40]}" is read as "{usual}".' for as_is, usual in read.items())
    return replace(other, family=_with_renamed_columns(other.family, read), repairs=tuple(repairs))


def other_family(row: dict[str, Any], family: Family) -> Family | None:
    """The family of a row that clearly belongs to a different family than its file."""
    own = family.matches(row)
    if own >= 1:
        return None
    return next((other for other in FAMILIES if other.name != family.name and other.matches(row) > max(own, 0.9)), None)


def mixed_formats(other: Family, family: Family) -> Problem:
    """The problem with a row that belongs to a different family than its file."""
    fix = f"Put {other.name} rows into a file of their own."
    return Problem("", f"mixed formats: {other.name} row in a file of {family.name} rows", fix)


def unknown_fields(row: dict[str, Any]) -> str:
    """The first field names of a row, for a sentence."""
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
    if beside := list(_also_matching(rows, family, totals)):
        names = " and ".join(f'"{name}"' for name in beside)
        saw += f" They also hold {names}, which could be read on its own and is ignored."
        sure = min(sure, AMBIGUOUS)
    return Recognition(family, round(sure, 2), saw)


def _layouts(rows: Sequence[dict[str, Any]], family: Family) -> str:
    """What the rows hold, with their own column names; with counts if they differ."""
    if family.layout is None:
        return family.saw
    counts = Counter(family.layout(row) for row in rows if family.matches(row) >= 1)
    if len(counts) < 2:
        return next(iter(counts), family.saw)
    return " or ".join(f"{layout}: {times:,}" for layout, times in counts.most_common(MAX_LAYOUTS))


def _also_matching(rows: Sequence[dict[str, Any]], family: Family, totals: list[float]) -> Iterator[str]:
    """The columns that make the rows match another family too."""
    there = frozenset(rows[0])
    named: set[str] = set()
    for other, total in zip(FAMILIES, totals, strict=True):
        extra = (other.fields & there) - family.fields - {"input", "system", "tools"}
        if other is not family and total >= AMBIGUOUS * len(rows) and extra - named:
            named |= extra
            yield sorted(extra)[0]


def _normalised_names(rows: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Column names to be read in lower case with underscores, unless another column has that name already."""
    there = {name for row in rows for name in row}
    usual = {name: name.strip().lower().replace(" ", "_").replace("-", "_") for name in there}
    changed = {name: new for name, new in usual.items() if name != new and new not in there}
    return {name: new for name, new in sorted(changed.items()) if list(changed.values()).count(new) == 1}


def _renamed(row: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    return {names.get(name, name): value for name, value in row.items()}


def _with_renamed_columns(family: Family, names: dict[str, str]) -> Family:
    """The family for rows whose columns have these names."""
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
        fast_path=no_fast_path,
    )
