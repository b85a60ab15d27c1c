"""The first rows of a file as they stand in it: what a person looks at who says what each column holds."""

import json
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

SAMPLE = "sample.json"
ROWS = 5
MOST_BYTES = 200_000  # of a row; longer ones are passed over


def write_sample(rows: Iterable[dict[str, Any]], path: Path) -> None:
    """Write the first rows that are not too long to show."""
    texts = (text for row in rows if len(text := json.dumps(row)) <= MOST_BYTES)
    path.write_text(f"[{','.join(islice(texts, ROWS))}]", encoding="ascii")


def read_sample(path: Path) -> list[dict[str, Any]]:
    """The rows, none where no check has written any."""
    try:
        found: list[dict[str, Any]] = json.loads(path.read_text(encoding="ascii"))
    except (FileNotFoundError, ValueError):
        return []
    return found
