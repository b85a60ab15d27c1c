"""Token statistics of canonical rows for a base model: their lengths, and how many tokens are trained."""

import json
import math
import random
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from trainer.errors import TrainerError
from trainer.events import Emit, Finished
from trainer.formats.canonical import Row, row_of
from trainer.formats.publishing import publish
from trainer.formats.survey import Measures, measure
from trainer.rendering import Renderer

SAMPLE_ROWS = 5000  # larger datasets are sampled
MAX_GROUPS = 250  # row groups that are read at most
LENGTHS = (128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768)
BARS = 24
WHOLE = 0.99  # share of rows that the suggested length does not truncate
STEP = 128  # suggested lengths are multiples of it
MAX_CHARACTERS = 2_000_000  # per row; longer ones are assumed to have one token per four characters


@dataclass
class Counts:
    """Per row: tokens of its longest sequence, characters, turns and tokens of its answers; then totals.

    `problem`: why the first of `refused` rows cannot be rendered. `left_out`: what the template leaves out of how many
    rows.
    """

    tokens: "array[int]" = field(default_factory=lambda: array("q"))
    characters: "array[int]" = field(default_factory=lambda: array("q"))
    turns: "array[int]" = field(default_factory=lambda: array("q"))
    answers: "array[int]" = field(default_factory=lambda: array("q"))
    all: int = 0
    trained: int = 0
    refused: int = 0
    problem: str = ""
    left_out: Counter[str] = field(default_factory=Counter)

    def add(self, row: Row, renderer: Renderer) -> None:
        measures = measure(row)
        if measures.characters > MAX_CHARACTERS:
            self._note(measures, [measures.characters // 4], [measures.answer_characters // 4])
            return
        try:
            examples = renderer.examples(row)
            self.left_out.update(renderer.left_out(row))
        except TrainerError as error:
            self.refused += 1
            self.problem = self.problem or f"Line {row.line}: {error.text} {error.fix}"
            return
        self._note(measures, [one.whole for one in examples], [sum(one.learnt) for one in examples])

    def _note(self, measures: Measures, tokens: list[int], trained: list[int]) -> None:
        self.tokens.append(max(tokens))
        self.characters.append(measures.characters)
        self.answers.append(max(trained))
        self.turns.append(measures.turns)
        self.all += sum(tokens)
        self.trained += sum(trained)


def count_tokens(rows: Path, base: Path, out: Path, emit: Emit) -> None:
    """Write `out`/tokens.json for a rows.parquet and a base model's folder, and emit Finished.

    Besides the reported statistics, the file contains the sorted lengths of the counted rows in tokens and characters.
    """
    renderer = Renderer.load(base)
    counts, total = Counts(), pq.read_metadata(rows).num_rows
    for row in sample(rows, SAMPLE_ROWS):
        counts.add(row, renderer)
    report = _report(counts, total)
    temporary = out / ".tokens.json"
    ordered = {"tokens": sorted(counts.tokens), "characters": sorted(counts.characters)}
    temporary.write_text(json.dumps(report | {"ordered": ordered}), encoding="utf-8")
    publish(temporary, out / "tokens.json")
    emit(Finished(folder=str(out), facts=report))


def sample(rows: Path, most: int) -> Iterator[Row]:
    """All rows, or a deterministic sample of `most` of them, spread evenly."""
    with pq.ParquetFile(rows) as file:
        meta = file.metadata
        groups = list(range(meta.num_row_groups))
        if meta.num_rows > most and len(groups) > MAX_GROUPS:
            groups = [groups[at * len(groups) // MAX_GROUPS] for at in range(MAX_GROUPS)]
        row_count = sum(meta.row_group(number).num_rows for number in groups)
        wanted = _spread_evenly(row_count, most)
        before = 0
        for number in groups:
            table = file.read_row_group(number)
            for index in range(table.num_rows):
                if wanted is None or before + index in wanted:
                    yield row_of(table.slice(index, 1).to_pylist()[0])
            before += table.num_rows


def _spread_evenly(row_count: int, most: int) -> set[int] | None:
    """A random row of each of `most` equal stretches, as rows may be periodic; None for all rows."""
    if row_count <= most:
        return None
    rng = random.Random(row_count)  # noqa: S311 # deterministic
    edges = [at * row_count // most for at in range(most + 1)]
    return {rng.randrange(start, end) for start, end in pairwise(edges)}


def _report(counts: Counts, total: int) -> dict[str, Any]:
    sampled = len(counts.tokens)
    return {
        "rows": total,
        "sampled": sampled + counts.refused,
        "refused": counts.refused,
        "problem": counts.problem,
        "left_out": dict(counts.left_out),
        "all_tokens": round(counts.all * total / max(1, sampled + counts.refused)),
        "trained_share": counts.trained / max(1, counts.all),
        "tokens": _distribution(counts.tokens),
        "turns": _distribution(counts.turns),
        "answers": _distribution(counts.answers),
        "over": {str(length): sum(one > length for one in counts.tokens) for length in LENGTHS},
        "suggested": suggested_length(counts.tokens),
    }


def _distribution(values: Sequence[int]) -> dict[str, Any]:
    """Some quantiles, and the bars of a histogram with the rows in each."""
    if not values:
        return {"p50": 0, "p95": 0, "p99": 0, "max": 0, "bars": []}
    ordered = sorted(values)
    found = {f"p{part}": _quantile(ordered, part / 100) for part in (50, 95, 99)}
    most = ordered[-1]
    # A few very long rows would squeeze all others into one bar, so the last bar includes everything beyond.
    shown = min(most, max(BARS, 2 * found["p99"]))
    width = max(1, math.ceil((shown + 1) / BARS))
    counts = [0] * (shown // width + 1)
    for one in ordered:
        counts[min(one // width, len(counts) - 1)] += 1
    bars = [{"from": at * width, "to": at * width + width - 1, "rows": count} for at, count in enumerate(counts)]
    bars[-1]["to"] = max(bars[-1]["to"], most)
    return {**found, "max": most, "bars": bars}


def _quantile(ordered: Sequence[int], share: float) -> int:
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)]


def suggested_length(tokens: Sequence[int]) -> int:
    """The smallest multiple of STEP that truncates almost no rows, or none at all if that costs little more."""
    if not tokens:
        return 0
    ordered = sorted(tokens)
    most, nearly = ordered[-1], _quantile(ordered, WHOLE)
    length = most if most <= 1.25 * nearly else nearly
    return max(STEP, math.ceil(length / STEP) * STEP)
