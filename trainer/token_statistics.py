"""Counts the tokens of canonical rows as a base model trains on them: how long they are, how much of it is learnt."""

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

SAMPLE_ROWS = 5000  # of more rows so many are counted, spread evenly
GROUPS = 250  # of the file that are read at most
LENGTHS = (128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768)
BARS = 24
WHOLE = 0.99  # of the rows that the suggested length leaves whole
STEP = 128  # suggested lengths are multiples of it
MOST_CHARACTERS = 2_000_000  # of a row; longer ones are taken to have one token in four characters


@dataclass
class Counted:
    """Of each counted row: tokens of its longest sequence, characters, turns, tokens of its answers; then of all.

    left_out: what the template passes over, and in how many rows.
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
        of = measure(row)
        if of.characters > MOST_CHARACTERS:
            self._note(of, [of.characters // 4], [of.answer_characters // 4])
            return
        try:
            examples = renderer.examples(row)
            self.left_out.update(renderer.left_out(row))
        except TrainerError as error:
            self.refused += 1
            self.problem = self.problem or f"Line {row.line}: {error.text} {error.fix}"
            return
        self._note(of, [one.whole for one in examples], [sum(one.learnt) for one in examples])

    def _note(self, of: Measures, tokens: list[int], trained: list[int]) -> None:
        self.tokens.append(max(tokens))
        self.characters.append(of.characters)
        self.answers.append(max(trained))
        self.turns.append(of.turns)
        self.all += sum(tokens)
        self.trained += sum(trained)


def count_tokens(rows: Path, base: Path, out: Path, emit: Emit) -> None:
    """Write `out`/tokens.json for a rows.parquet and the folder of a base model; emit Finished.

    Beside what is told, the file has how long each counted row is, in tokens and in characters, each in its own order.
    Raises TrainerError(user_config) for a base model without a chat template.
    """
    renderer = Renderer.load(base)
    counted, total = Counted(), pq.read_metadata(rows).num_rows
    for row in sample(rows, SAMPLE_ROWS):
        counted.add(row, renderer)
    report = _report(counted, total)
    aside = out / ".tokens.json"
    ordered = {"tokens": sorted(counted.tokens), "characters": sorted(counted.characters)}
    aside.write_text(json.dumps(report | {"ordered": ordered}), encoding="utf-8")
    publish(aside, out / "tokens.json")
    emit(Finished(folder=str(out), facts=report))


def sample(rows: Path, most: int) -> Iterator[Row]:
    """All rows, or `most` of them spread evenly: the same each time."""
    with pq.ParquetFile(rows) as file:
        meta = file.metadata
        groups = list(range(meta.num_row_groups))
        if meta.num_rows > most:
            groups = [groups[at * len(groups) // GROUPS] for at in range(GROUPS)] if len(groups) > GROUPS else groups
        there = sum(meta.row_group(number).num_rows for number in groups)
        wanted = _spread_evenly(there, most)
        before = 0
        for number in groups:
            table = file.read_row_group(number)
            for place in range(table.num_rows):
                if wanted is None or before + place in wanted:
                    yield row_of(table.slice(place, 1).to_pylist()[0])
            before += table.num_rows


def _spread_evenly(there: int, most: int) -> set[int] | None:
    """One row by chance of each stretch, as rows may repeat in a rhythm; None for all of them."""
    if there <= most:
        return None
    dice = random.Random(there)  # noqa: S311 # the same each time
    edges = [at * there // most for at in range(most + 1)]
    return {dice.randrange(start, end) for start, end in pairwise(edges)}


def _report(counted: Counted, total: int) -> dict[str, Any]:
    sampled = len(counted.tokens)
    return {
        "rows": total,
        "sampled": sampled + counted.refused,
        "refused": counted.refused,
        "problem": counted.problem,
        "left_out": dict(counted.left_out),
        "all_tokens": round(counted.all * total / max(1, sampled + counted.refused)),
        "trained_share": counted.trained / max(1, counted.all),
        "tokens": _spread(counted.tokens),
        "turns": _spread(counted.turns),
        "answers": _spread(counted.answers),
        "over": {str(length): sum(one > length for one in counted.tokens) for length in LENGTHS},
        "suggested": suggested_length(counted.tokens),
    }


def _spread(values: Sequence[int]) -> dict[str, Any]:
    """Some quantiles and the bars of a histogram: upper ends that are whole numbers, and rows up to each."""
    if not values:
        return {"p50": 0, "p95": 0, "p99": 0, "max": 0, "bars": []}
    ordered = sorted(values)
    found = {f"p{part}": _quantile(ordered, part / 100) for part in (50, 95, 99)}
    most = ordered[-1]
    # A few rows of a hundred times the usual length would leave one bar: what is beyond is in the last.
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
    """The smallest multiple of STEP that leaves nearly all rows whole; all of them, where that costs little more."""
    if not tokens:
        return 0
    ordered = sorted(tokens)
    most, nearly = ordered[-1], _quantile(ordered, WHOLE)
    length = most if most <= 1.25 * nearly else nearly
    return max(STEP, math.ceil(length / STEP) * STEP)
