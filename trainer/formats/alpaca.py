"""The alpaca family: `instruction`, `input`, `output`, and optionally `system` and `history`."""

from typing import Any

from trainer.formats.canonical import Content, Message
from trainer.formats.family import Family
from trainer.formats.fields import decode_if_json, optional_text, read_text
from trainer.formats.problems import BadRow, json_type

FIELDS = frozenset({"instruction", "input", "output", "system", "history"})


def matches(row: dict[str, Any]) -> float:
    """How much a row looks like this family, from 0 to 1."""
    if "instruction" in row and "output" in row:
        return 1.0 if "kto_tag" not in row else 0.5
    return 0.5 * (("instruction" in row) + 0.5 * ("output" in row))


def read(row: dict[str, Any]) -> Content:
    """The row as a chat."""
    asked, output = read_question(row), read_text(row, "output")
    return Content(messages=[*asked, {"role": "assistant", "content": output}])


def fast_path(row: dict[str, Any]) -> tuple[list[Message], int] | None:
    """The same as `read` for rows without history or system message; see Family."""
    question, answer, extra = row.get("instruction"), row.get("output"), row.get("input", "")
    if not (type(question) is type(answer) is type(extra) is str and len(row) == 2 + ("input" in row)):
        return None
    if not question or question.isspace() or "\0" in question or not answer or answer.isspace() or "\0" in answer:
        return None
    if extra:
        if "\0" in extra:
            return None
        if not extra.isspace():
            question = f"{question}\n{extra}"
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}], 2 * len(row)


def read_question(row: dict[str, Any]) -> list[Message]:
    """Everything before the answer. The last question is the instruction plus a line with the input, if any."""
    messages: list[Message] = []
    if system := optional_text(row, "system"):
        messages.append({"role": "system", "content": system})
    instruction = read_text(row, "instruction")
    extra = optional_text(row, "input")
    for question, answer in read_history(row):
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return [*messages, {"role": "user", "content": f"{instruction}\n{extra}" if extra else instruction}]


def read_history(row: dict[str, Any]) -> list[tuple[str, str]]:
    """Earlier questions with their answers."""
    if not row.get("history"):
        return []
    history = decode_if_json(row["history"], "history")
    if not isinstance(history, list):
        raise BadRow("history", f"must be a list, not {json_type(history)}", "Use a list of [question, answer] pairs.")
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


FAMILY = Family(
    name="alpaca",
    kind="chat",
    saw='"instruction" and "output" (alpaca)',
    fields=FIELDS,
    matches=matches,
    read=read,
    fast_path=fast_path,
)
