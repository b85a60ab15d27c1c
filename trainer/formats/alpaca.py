"""The alpaca family: `instruction`, `input`, `output`, and optionally `system` and `history`."""

from typing import Any

from trainer.formats.canonical import Content, Kind, Message
from trainer.formats.problems import BadRow, kind_of

NAME = "alpaca"
KIND: Kind = "chat"
FIELDS = frozenset({"instruction", "input", "output", "system", "history"})
MESSAGE_FIELDS: frozenset[str] = frozenset()


def matches(row: dict[str, Any]) -> float:
    """How much a row looks like this family, 0 to 1."""
    if "instruction" in row and "output" in row:
        return 1.0
    return 0.5 * (("instruction" in row) + 0.5 * ("output" in row))


def to_content(row: dict[str, Any]) -> Content:
    """The row as chat."""
    asked, output = read_question(row), _text(row, "output")
    return Content(messages=[*asked, {"role": "assistant", "content": output}])


def read_question(row: dict[str, Any]) -> list[Message]:
    """All but the answer. The last question is the instruction, a line end, and the input when there is one."""
    system = _text(row, "system", optional=True)
    instruction = _text(row, "instruction")
    extra = _text(row, "input", optional=True)
    messages: list[Message] = []
    if system:
        messages.append({"role": "system", "content": system})
    for question, answer in _history(row):
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return [*messages, {"role": "user", "content": f"{instruction}\n{extra}" if extra.strip() else instruction}]


def _text(row: dict[str, Any], field: str, *, optional: bool = False) -> str:
    value = row.get(field)
    if value is None and optional:
        return ""
    if field not in row:
        raise BadRow(field, "field is missing", f'Add "{field}" with a text to this row.')
    if not isinstance(value, str):
        raise BadRow(field, f"must be text, not {kind_of(value)}", f'Put the value of "{field}" in quotes.')
    if not optional and not value.strip():
        raise BadRow(field, "field is empty", f'Write a text in "{field}", or remove this row.')
    return value


def _history(row: dict[str, Any]) -> list[tuple[str, str]]:
    history = row.get("history")
    if history is None:
        return []
    if not isinstance(history, list):
        raise BadRow("history", f"must be a list, not {kind_of(history)}", "Use a list of [question, answer] pairs.")
    pairs = []
    for number, pair in enumerate(history):
        good = (
            isinstance(pair, list) and len(pair) == 2 and all(isinstance(text, str) and text.strip() for text in pair)
        )
        if not good:
            fix = "Each entry is a list of two texts: the question and the answer."
            raise BadRow(f"history[{number}]", "is not a pair of texts", fix)
        pairs.append((pair[0], pair[1]))
    return pairs
