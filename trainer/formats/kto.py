"""The KTO family: a prompt, a completion, and a label that says whether it is good."""

from collections.abc import Iterable
from typing import Any

from trainer.formats.canonical import Content, Message
from trainer.formats.conversations import COLUMNS, column_with, read_conversation, turn_warnings
from trainer.formats.family import Family
from trainer.formats.problems import BadRow, json_type
from trainer.formats.question import PROMPT_FIELDS, QUESTIONS, read_answer, read_prompt, unread
from trainer.formats.tools import tools_of

CONVERSATIONS = frozenset(COLUMNS)
TAG = "kto_tag"  # LLaMA-Factory's name for the label
ANSWERS = ("completion", "output", "response")
LABEL_TEXTS = {"true": True, "false": False, "1": True, "0": False}
REPAIR = "Labels written as text or as 1 and 0 are read as true and false"


def matches(row: dict[str, Any]) -> float:
    """How much a row looks like this family, from 0 to 1."""
    if TAG in row:
        return 1.0
    if "label" not in row:
        return 0.0
    if "prompt" in row and "completion" in row:
        return 1.0
    # With other columns a label may be a class: only true or false counts as a judgement.
    judged = isinstance(row["label"], bool) and (("prompt" in row and "response" in row) or _column(row) is not None)
    return 1.0 if judged else 0.0


def read(row: dict[str, Any]) -> Content:
    """The row with its prompt and completion as messages."""
    label = read_label(row, TAG if TAG in row else "label")
    if column := _column(row):
        prompt, completion = _split_answer(read_conversation(row, column), column)
    else:
        answer = next((name for name in ANSWERS if name in row), ANSWERS[0])
        prompt, completion = read_prompt(row), read_answer(row, answer)
    return Content(prompt=prompt, completion=completion, label=label, tools=tools_of(row))


def read_label(row: dict[str, Any], field: str) -> bool:
    """A boolean; tables and Argilla's exports write it as text or as 1 and 0."""
    label = row.get(field)
    if isinstance(label, bool):
        return label
    if field not in row:
        raise BadRow(field, "field is missing", "Add true for a good completion, false for a bad one.")
    known = LABEL_TEXTS.get(str(label).lower()) if isinstance(label, (str, int)) else None
    if known is None:
        raise BadRow(field, f"must be true or false, not {json_type(label)}", "Write true or false, without quotes.")
    return known


def repaired(row: dict[str, Any]) -> Iterable[str]:
    if not isinstance(row.get(TAG, row.get("label")), bool):
        yield REPAIR
    yield from turn_warnings(row, *COLUMNS, *QUESTIONS, *ANSWERS)


def ignored(row: dict[str, Any]) -> list[str]:
    labels = ["label"] if TAG in row and "label" in row else []
    if column := _column(row):
        return labels + [name for name in (CONVERSATIONS | {*QUESTIONS, *ANSWERS}) & row.keys() if name != column]
    return labels + unread(row, ANSWERS)


def _column(row: dict[str, Any]) -> str | None:
    if CONVERSATIONS.isdisjoint(row):
        return None
    return column_with(row, "from") or column_with(row, "role")


def _split_answer(messages: list[Message], column: str) -> tuple[list[Message], list[Message]]:
    """The prompt and the last answer, including the tool calls that led to it: this answer is what the label judges."""
    asked = max((at for at, one in enumerate(messages) if one["role"] == "user"), default=-1)
    if asked < 0:
        raise BadRow(column, "no question", "Begin with a message of the user.")
    answer = [{name: one for name, one in message.items() if name != "weight"} for message in messages[asked + 1 :]]
    return messages[: asked + 1], answer


def layout(row: dict[str, Any]) -> str:
    """Where the row has its conversation or its question and answer, and its label."""
    label = TAG if TAG in row else "label"
    if column := _column(row):
        whose = "KTO as LLaMA-Factory has it" if label == TAG else "KTO"
        return f'"{column}" and a "{label}" that judges its last answer ({whose})'
    answer = next((name for name in ANSWERS if name in row), ANSWERS[0])
    asked = next((name for name in ("instruction", *QUESTIONS) if name in row), QUESTIONS[0])
    whose = "KTO as TRL has it" if (asked, answer, label) == ("prompt", "completion", "label") else "KTO"
    return f'"{asked}", "{answer}" and a "{label}" that judges it ({whose})'


FAMILY = Family(
    name="kto",
    kind="labelled",
    saw='a "prompt", a "completion" and a "label" that judges it (KTO)',
    layout=layout,
    fields=PROMPT_FIELDS | CONVERSATIONS | {*ANSWERS, "label", TAG},
    matches=matches,
    read=read,
    ignored=ignored,
    repaired=repaired,
)
