"""What the families share whose rows hold a question and its answers apart: each as text or as messages."""

from typing import Any

from trainer.formats.alpaca import read_question
from trainer.formats.canonical import Message
from trainer.formats.messages import check_answer, check_prompt, read_messages, read_text
from trainer.formats.problems import BadRow

PROMPT_FIELDS = frozenset({"prompt", "instruction", "input", "system", "history", "question", "tools"})


def read_prompt(row: dict[str, Any]) -> list[Message]:
    """What is asked: `prompt` as text or messages, `question`, or alpaca's `instruction` with `input`."""
    if "instruction" in row:
        return read_question(row)
    field = "question" if "question" in row and "prompt" not in row else "prompt"
    if isinstance(row.get(field), list):
        prompt = read_messages(row, field)
        check_prompt(prompt, field)
        return prompt
    asked: Message = {"role": "user", "content": read_text(row, field)}
    return [{"role": "system", "content": read_text(row, "system")}, asked] if row.get("system") else [asked]


def read_answer(row: dict[str, Any], field: str) -> list[Message]:
    """An answer: text, one message, or the messages that end a conversation."""
    value = row.get(field)
    if not isinstance(value, (list, dict)):
        return [{"role": "assistant", "content": read_text(row, field)}]
    answer = read_messages({field: [value] if isinstance(value, dict) else value}, field)
    check_answer(answer, field)
    return [{name: value for name, value in message.items() if name != "weight"} for message in answer]


def differ(first: list[Message], second: list[Message], field: str) -> None:
    """Raises BadRow for two answers that are one."""
    if first == second:
        raise BadRow(field, "both answers are the same", "Remove this row: nothing can be preferred.")
