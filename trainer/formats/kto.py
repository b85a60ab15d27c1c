"""The KTO family: a prompt, one completion, and a label that tells whether it is a good one."""

from typing import Any

from trainer.formats.canonical import Content, Kind
from trainer.formats.messages import read_tools
from trainer.formats.problems import BadRow, kind_of
from trainer.formats.question import read_answer, read_prompt

NAME = "kto"
KIND: Kind = "labelled"
FIELDS = frozenset({"prompt", "completion", "label", "system", "tools"})
MESSAGE_FIELDS: frozenset[str] = frozenset()


def matches(row: dict[str, Any]) -> float:
    """How much a row looks like this family, 0 to 1."""
    return 1.0 if row.keys() >= {"prompt", "completion", "label"} else 0.0


def to_content(row: dict[str, Any]) -> Content:
    """The row with its prompt and completion as messages."""
    label = row.get("label")
    if "label" not in row:
        raise BadRow("label", "field is missing", "Add true for a good completion, false for a bad one.")
    if not isinstance(label, bool):
        raise BadRow("label", f"must be true or false, not {kind_of(label)}", "Write true or false, without quotes.")
    prompt, completion = read_prompt(row), read_answer(row, "completion")
    return Content(prompt=prompt, completion=completion, label=label, tools=read_tools(row.get("tools")))
