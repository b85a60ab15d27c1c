"""The first rows of a file as uploaded, for a person who maps its columns."""

import json
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

SAMPLE = "sample.json"
ROWS = 5
MAX_BYTES = 200_000  # per row; longer rows are skipped


def write_sample(rows: Iterable[dict[str, Any]], path: Path) -> None:
    """Write the first rows that are short enough to show."""
    texts = (text for row in rows if len(text := json.dumps(row)) <= MAX_BYTES)
    path.write_text(f"[{','.join(islice(texts, ROWS))}]", encoding="ascii")


def read_sample(path: Path) -> list[dict[str, Any]]:
    """The rows; empty if no check has written any."""
    try:
        found: list[dict[str, Any]] = json.loads(path.read_text(encoding="ascii"))
    except (FileNotFoundError, ValueError):
        return []
    return found
