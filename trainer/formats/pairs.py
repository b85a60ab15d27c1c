"""Pairs of question and answer columns under other names than alpaca's; some have a context or a system message."""

from collections.abc import Callable
from typing import Any

from trainer.formats.canonical import Content, Message
from trainer.formats.family import Family
from trainer.formats.fields import optional_text, read_text
from trainer.formats.messages import OTHER_FAMILY_FIELDS
from trainer.formats.problems import BadRow

CONTEXTS = ("context", "article", "passage")
SYSTEMS = ("system", "system_prompt")

# Question column, answer column, and whose format it is. The first match wins.
PAIRS = (
    ("instruction", "response", "gpteacher, OASST and Dolly"),
    ("instruction", "answer", ""),
    ("instruction", "completion", ""),
    ("question", "response", "OpenOrca"),
    ("question", "answer", ""),
    ("question", "output", ""),
    ("query", "response", ""),
    ("query", "answer", ""),
    ("prompt", "response", ""),
    ("prompt", "generation", "Metharme"),
    ("prompt", "answer", ""),
    ("prompt", "output", ""),
    ("problem", "solution", ""),
    ("problem", "answer", ""),
    ("input", "output", ""),
    ("input", "response", ""),
    ("user", "assistant", ""),
    ("human", "assistant", ""),
    ("context", "response", ""),
    ("article", "summary", ""),
    ("document", "summary", ""),
    ("dialogue", "summary", ""),
)


def _family(question: str, answer: str, whose: str) -> Family:
    contexts = tuple(name for name in ("input", *CONTEXTS) if name != question)
    if question != "instruction":
        contexts = tuple(name for name in contexts if name != "input")
    return Family(
        name=f"{question}/{answer}",
        kind="chat",
        saw=f'"{question}" and "{answer}"' + (f" ({whose})" if whose else ""),
        fields=frozenset({question, answer, *contexts, *SYSTEMS}),
        matches=lambda row: 1.0 if question in row and answer in row and OTHER_FAMILY_FIELDS.isdisjoint(row) else 0.0,
        read=_reader(question, answer, contexts),
    )


def _reader(question: str, answer: str, contexts: tuple[str, ...]) -> Callable[[dict[str, Any]], Content]:
    leading = question == "question"  # a text that is asked about comes first, the input of an instruction last

    def read(row: dict[str, Any]) -> Content:
        messages: list[Message] = []
        if system := _one_of(row, SYSTEMS):
            messages.append({"role": "system", "content": system})
        asked = read_text(row, question)
        if context := _one_of(row, contexts):
            asked = f"{context}\n\n{asked}" if leading else f"{asked}\n{context}"
        messages.append({"role": "user", "content": asked})
        messages.append({"role": "assistant", "content": read_text(row, answer)})
        return Content(messages=messages)

    return read


def _one_of(row: dict[str, Any], names: tuple[str, ...]) -> str:
    """The text of one of these columns, or "". Raises BadRow for two, as either could be meant."""
    found = [name for name in names if name in row and optional_text(row, name)]
    if len(found) > 1:
        raise BadRow(found[1], f'says what "{found[0]}" says', "Keep one of the two columns, or choose one by hand.")
    return str(row[found[0]]) if found else ""


FAMILIES = tuple(_family(*pair) for pair in PAIRS)
