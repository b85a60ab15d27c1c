"""The version of Lowrank; CHANGELOG.md is its only source."""

import re
from functools import cache
from pathlib import Path

CHANGELOG = Path(__file__).resolve().parent.parent / "CHANGELOG.md"


@cache
def version() -> str:
    """The newest version that CHANGELOG.md describes, such as 0.1.0."""
    found = re.search(r"^## (\d+\.\d+\.\d+)", CHANGELOG.read_text(encoding="utf-8"), flags=re.MULTILINE)
    if found is None:
        raise ValueError(f"{CHANGELOG} has no heading such as `## 0.1.0`")
    return found.group(1)
