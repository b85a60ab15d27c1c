"""Describes the columns of a file from its first rows, for a person who maps them."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from trainer.formats.canonical import canonical_json
from trainer.formats.findings import printable
from trainer.formats.problems import json_type

MAX_COLUMNS = 200
SAMPLES = 3
SAMPLE_LENGTH = 120


def describe_columns(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Name, up to three different samples and the most frequent type of each column, in order of appearance."""
    samples: dict[str, list[str]] = {}
    types: dict[str, Counter[str]] = {}
    for row in rows:
        for name, value in row.items():
            if name not in samples:
                if len(samples) == MAX_COLUMNS:
                    continue
                samples[name], types[name] = [], Counter()
            types[name][json_type(value)] += value is not None
            shown = _shown(value)
            if shown and len(samples[name]) < SAMPLES and shown not in samples[name]:
                samples[name].append(shown)
    return [{"name": printable(name, 200), "samples": samples[name], "type": _most(types[name])} for name in samples]


def _shown(value: Any) -> str:
    if value is None:
        return ""
    return printable(value if isinstance(value, str) else canonical_json(value), SAMPLE_LENGTH)


def _most(counts: Counter[str]) -> str:
    [(kind, times)] = counts.most_common(1)
    return kind.removeprefix("a ").removeprefix("an ") if times else "null"
