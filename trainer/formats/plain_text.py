"""The plain text family: `text` without a question, for continued pretraining."""

from typing import Any

from trainer.formats.canonical import Content
from trainer.formats.family import Family
from trainer.formats.fields import read_text


def matches(row: dict[str, Any]) -> float:
    """How much a row looks like this family, from 0 to 1."""
    return 1.0 if isinstance(row.get("text"), str) and "rejected_text" not in row else 0.0


def read(row: dict[str, Any]) -> Content:
    return Content(text=read_text(row, "text"))


FAMILY = Family(name="text", kind="text", saw='plain "text"', fields=frozenset({"text"}), matches=matches, read=read)
