"""The plain text family: `text` without a question, to go on learning a language or a subject."""

from typing import Any

from trainer.formats.canonical import Content, Kind
from trainer.formats.messages import read_text

NAME = "text"
KIND: Kind = "text"
FIELDS = frozenset({"text"})
MESSAGE_FIELDS: frozenset[str] = frozenset()


def matches(row: dict[str, Any]) -> float:
    """How much a row looks like this family, 0 to 1."""
    return 0.8 if isinstance(row.get("text"), str) else 0.0


def to_content(row: dict[str, Any]) -> Content:
    return Content(text=read_text(row, "text"))
