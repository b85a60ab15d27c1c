"""Milliseconds to find and show pages of a surveyed version: rare and common words, filters, first and last pages."""

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import accumulate
from pathlib import Path
from typing import Any

from benchmarks.datasets import ROOT
from trainer.formats.rows_file import rows_at
from webapp.datasets.search import TooSlow, Wanted, find

WORDS = 50_000  # different ones, the n-th as often as natural language has it (Zipf)
SIZE = 50  # rows of a page
ROUNDS = 5
WANTED_MS = 100


def main() -> None:
    rows = int(os.environ.get("ROWS", "1000000"))
    with tempfile.TemporaryDirectory(dir=os.environ.get("FOLDER")) as folder:
        out = Path(folder)
        with (out / "rows.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in some_rows(rows))
        for command in (["check", str(out / "rows.jsonl")], ["survey", str(out / "rows.parquet")]):
            begun = time.monotonic()
            subprocess.run(
                [sys.executable, "-m", "trainer", *command, "--out", folder],
                cwd=ROOT,
                check=True,
                stdout=subprocess.DEVNULL,
            )
            print(f"{command[0]}: {time.monotonic() - begun:.0f} s by the clock")
        measure(out, rows)


def measure(out: Path, rows: int) -> None:
    print(f"{rows:,} rows; the longest of {ROUNDS} times, milliseconds by the clock and of the processor")
    most: list[tuple[float, float]] = []
    for name, wanted in searches().items():
        for place, where in {"first": {}, "middle": {"start": rows // 2}, "last": {"end": rows}}.items():
            took = [page(out, wanted, **where) for _ in range(ROUNDS)]
            most += took
            print(f"{name:<28} {place:<7} {max(took)[0]:7.1f} {max(cpu for _, cpu in took):7.1f}")
    for what, times in zip(("clock", "processor"), map(sorted, zip(*most, strict=True)), strict=True):
        median, high = times[len(times) // 2], times[len(times) * 95 // 100]
        print(f"{what}: median {median:.1f}, 95th {high:.1f}, wanted {WANTED_MS}")


def page(out: Path, wanted: Wanted, **where: int) -> tuple[float, float]:
    """Milliseconds by the clock and of the processor; for a search that is broken off, until then."""
    clock, cpu = time.perf_counter(), time.process_time()
    with suppress(TooSlow):
        found = find(out / "survey.sqlite", wanted, size=SIZE, **where)
        rows_at(out / "rows.parquet", found.numbers)
    return (time.perf_counter() - clock) * 1000, (time.process_time() - cpu) * 1000


def searches() -> dict[str, Wanted]:
    """What people look for, and what is dear."""
    return {
        "the most common word": Wanted(q="w0"),
        "a common word": Wanted(q="word20"),
        "a word of every tenth row": Wanted(q="word100"),
        "a rare word": Wanted(q="word40000"),
        "no such word": Wanted(q="nowhere"),
        "the beginning of very many": Wanted(q="word"),
        "two letters of very many": Wanted(q="wo*"),
        "a longer beginning of many": Wanted(q="word1"),
        "a beginning and a rare word": Wanted(q="word word30000"),
        "a beginning in long rows": Wanted(q="word", shortest=1200),
        "two common words": Wanted(q="w0 w1"),
        "a common and a rare word": Wanted(q="w0 word30000"),
        "a phrase": Wanted(q='"w0 w1"'),
        "long rows": Wanted(shortest=500),
        "few rows are as long": Wanted(shortest=1200),
        "short rows": Wanted(longest=60),
        "several answers": Wanted(turns=2),
        "a role": Wanted(role="system"),
        "a finding": Wanted(finding="personal"),
        "any finding": Wanted(finding="any"),
        "a common word in long rows": Wanted(q="w0", shortest=1200),
        "the letters of nearly all": Wanted(script="Latin"),
        "the letters of few": Wanted(script="Cyrillic"),
        "a common word, few letters": Wanted(q="w0", script="Cyrillic"),
        "long rows, usual letters": Wanted(shortest=500, script="Latin"),
        "few rows as long, usual": Wanted(shortest=1200, script="Latin"),
        "a common word, few roles": Wanted(q="w0", role="system"),
    }


def some_rows(count: int) -> Iterator[dict[str, Any]]:
    """Conversations of natural length, a few with a system message, several answers, an address or other letters."""
    dice = random.Random(0)
    words = [f"w{n}" if n < 10 else f"word{n}" for n in range(WORDS)]
    weights = list(accumulate(1 / (n + 1) for n in range(WORDS)))
    for number in range(count):
        said = iter(dice.choices(words, cum_weights=weights, k=int(dice.lognormvariate(3.5, 0.6)) + 8))
        turns = 2 if number % 50 == 7 else 1
        messages = [{"role": "system", "content": "Be brief."}] if number % 1000 == 3 else []
        for _ in range(turns):
            messages.append({"role": "user", "content": " ".join([next(said), next(said), next(said)])})
            messages.append({"role": "assistant", "content": next(said)})
        mail = f" mail{number}@site.org" if number % 500 == 9 else ""
        messages[-1]["content"] = " ".join([*said, f"n{number}{mail}"])
        if number % 700 == 11:
            messages[-1]["content"] += " Это всё написано по-русски" * 40
        yield {"messages": messages}


if __name__ == "__main__":
    main()
