"""The prompt/completion family: a question and the answer to learn, as text or as messages."""

from typing import Any

from trainer.formats.canonical import Content, Kind
from trainer.formats.messages import read_tools
from trainer.formats.question import read_answer, read_prompt

NAME = "prompt/completion"
KIND: Kind = "chat"
FIELDS = frozenset({"prompt", "completion", "system", "tools"})
MESSAGE_FIELDS: frozenset[str] = frozenset()


def matches(row: dict[str, Any]) -> float:
    """How much a row looks like this family, 0 to 1."""
    if "label" in row:
        return 0.0
    return 0.5 * (("prompt" in row) + ("completion" in row))


def to_content(row: dict[str, Any]) -> Content:
    """The row as chat. The completion alone is learnt: answers inside the prompt are only read."""
    [messages] = Content(prompt=read_prompt(row), completion=read_answer(row, "completion")).conversations()
    return Content(messages=messages, tools=read_tools(row.get("tools")))
