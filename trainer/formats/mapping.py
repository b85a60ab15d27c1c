"""Columns with names of their own, read as a person has said what each one is."""

import json
from pathlib import Path
from typing import Any

from trainer.errors import TrainerError
from trainer.formats import kto, messages, plain_text, preference, prompt_completion
from trainer.formats.canonical import Content, Kind

# What a mapping of each kind is read as, and what its fields are called there.
READ_AS: dict[str, tuple[Any, dict[str, str]]] = {
    "chat": (messages, {"messages": "messages"}),
    "prompt_completion": (prompt_completion, {"answer": "completion"}),
    "preference": (preference, {}),
    "labelled": (kto, {"answer": "completion"}),
    "text": (plain_text, {}),
}


class MappedFamily:
    """A family whose fields have other names in the file."""

    def __init__(self, kind: str, fields: dict[str, str]) -> None:
        self._family, renamed = READ_AS[kind]
        self._columns = {renamed.get(field, field): column for field, column in fields.items()}
        self.NAME = f"mapped {self._family.NAME}"
        self.KIND: Kind = self._family.KIND
        self.FIELDS = frozenset(fields.values())
        self.MESSAGE_FIELDS: frozenset[str] = self._family.MESSAGE_FIELDS

    def matches(self, row: dict[str, Any]) -> float:
        """1: a person has said what this file is."""
        return 1.0

    def to_content(self, row: dict[str, Any]) -> Content:
        """The row as its family reads it, once its columns have the family's names."""
        content: Content = self._family.to_content(
            {field: row[column] for field, column in self._columns.items() if column in row}
        )
        return content


def read_mapping(path: Path) -> MappedFamily:
    """The mapping in a file. Raises TrainerError(user_config) when it is none."""
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
        return MappedFamily(given["kind"], dict(given["fields"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        fix = 'Write {"kind": "prompt_completion", "fields": {"prompt": column, "answer": column}}.'
        raise TrainerError("user_config", f"The mapping {path.name} cannot be used.", fix) from error
