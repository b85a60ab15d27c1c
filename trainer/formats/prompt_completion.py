"""The prompt/completion family: a question and an answer, each as text or as messages."""

from typing import Any

from trainer.formats.canonical import Content
from trainer.formats.conversations import turn_warnings
from trainer.formats.family import Family
from trainer.formats.question import PROMPT_FIELDS, is_messages, read_answer, read_prompt, unread
from trainer.formats.tools import tools_of


def matches(row: dict[str, Any]) -> float:
    """How much a row looks like this family, from 0 to 1."""
    if "label" in row or "kto_tag" in row:
        return 0.0
    return 0.5 * (("prompt" in row) + ("completion" in row))


def read(row: dict[str, Any]) -> Content:
    """The row as a chat. Only the completion is trained on; answers inside the prompt are context."""
    [messages] = Content(prompt=read_prompt(row), completion=read_answer(row, "completion")).conversations()
    return Content(messages=messages, tools=tools_of(row))


FAMILY = Family(
    name="prompt/completion",
    kind="chat",
    saw='"prompt" and "completion"',
    layout=lambda row: '"prompt" and "completion"' + (" as messages" if is_messages(row.get("prompt")) else ""),
    fields=PROMPT_FIELDS | {"completion"},
    matches=matches,
    read=read,
    ignored=unread,
    repaired=lambda row: turn_warnings(row, "prompt", "completion"),
)
