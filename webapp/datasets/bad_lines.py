"""The bad lines of a version: the first ones, those of one kind, all of them as a file."""

import json
from pathlib import Path
from typing import Any

from webapp.datasets.models import DatasetVersion
from webapp.datasets.storing import BAD_LINES

MOST_SHOWN = 100
SHOWN_TEXT = 500  # characters of a line
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
        "errors": errors,
        "problem": problem,
        "found": counts[problem] if problem else sum(counts.values()),
        "has_file": bad_lines_path(version).is_file(),
    }


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
                found.append(error | {"text": error["text"][:SHOWN_TEXT]})
                if len(found) == MOST_SHOWN:
                    break
    return found
