"""The bad lines of a version: the first ones, those of one kind, all of them as a file."""

import json
from pathlib import Path
from typing import Any

from trainer.formats.findings import excerpt
from webapp.datasets.highlighting import Piece
from webapp.datasets.models import DatasetVersion
from webapp.datasets.storing import BAD_LINES

MOST_SHOWN = 100
OTHER = "other"  # what kinds beyond the fiftieth are counted as


def bad_lines_path(version: DatasetVersion) -> Path:
    return version.folder / BAD_LINES


def bad_lines_name(version: DatasetVersion) -> str:
    return f"{Path(version.original_name).stem}.bad.jsonl"


def errors_of(version: DatasetVersion, problem: str) -> dict[str, Any]:
    """The first errors of this kind, or of all when there is no such kind, and how many there are."""
    report = version.report
    counts: dict[str, int] = report.get("error_counts", {})
    problem = problem if problem in counts and problem != OTHER else ""
    errors = _of_kind(version, problem) if problem else report.get("errors", [])
    return {
        "errors": [error | {"pieces": _pieces(error)} for error in errors],
        "problem": problem,
        "found": counts[problem] if problem else sum(counts.values()),
        "has_file": bad_lines_path(version).is_file(),
        "in_file": sum(counts.values()) - report.get("bad_lines_left_out", 0),
        "bad": sum(counts.values()),
    }


def _pieces(error: dict[str, Any]) -> list[Piece]:
    """The line with the place that is wrong marked, where that is known; reports of earlier releases know none."""
    text, at = error.get("text", ""), error.get("at", -1)
    if not 0 <= at < len(text):
        return [(text, False)]
    return [piece for piece in ((text[:at], False), (text[at], True), (text[at + 1 :], False)) if piece[0]]


def _of_kind(version: DatasetVersion, problem: str) -> list[dict[str, Any]]:
    """Out of the file of bad lines, which is long at times; the report has the first of all kinds alone."""
    path = bad_lines_path(version)
    if not path.is_file():
        return [error for error in version.report.get("errors", []) if error["problem"] == problem]
    found: list[dict[str, Any]] = []
    needle = json.dumps(problem).encode()
    with path.open("rb") as lines:
        for line in lines:
            if needle in line and (error := json.loads(line))["problem"] == problem:
                text, at = excerpt(error["text"], error["field"])
                found.append(error | {"text": text, "at": at})
                if len(found) == MOST_SHOWN:
                    break
    return found
