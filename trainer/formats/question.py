"""Shared by families with prompt and answers in separate columns, each as text or as messages."""

from typing import Any

from trainer.formats.alpaca import read_question
from trainer.formats.canonical import Message
from trainer.formats.conversations import check_answer, check_prompt, read_messages, with_system
from trainer.formats.fields import optional_text, read_text
from trainer.formats.problems import BadRow
from trainer.formats.transcripts import is_transcript, read_transcript

_KEYS = (('"role"', '"content"'), ('"from"', '"value"'))
QUESTIONS = ("prompt", "question", "query", "input")  # the first one that a row has is the prompt
PROMPT_FIELDS = frozenset({*QUESTIONS, "instruction", "system", "history", "tools", "functions"})


def read_prompt(row: dict[str, Any]) -> list[Message]:
    """The prompt: `prompt` or one of its other names, as text or messages, or alpaca's `instruction` with `input`."""
    if "instruction" in row:
        return read_question(row)
    field = next((name for name in QUESTIONS if name in row), QUESTIONS[0])
    value = row.get(field)
    if is_messages(value):
        prompt = with_system(read_messages(row, field), row)
        check_prompt(prompt, field)
        return prompt
    text = read_text(row, field)
    if is_transcript(text):
        prompt = with_system(read_transcript(text, field), row)
        check_prompt(prompt, field)
        return prompt
    system, asked = optional_text(row, "system"), {"role": "user", "content": text}
    return [{"role": "system", "content": system}, asked] if system else [asked]


def unread(row: dict[str, Any], *alternatives: tuple[str, ...]) -> list[str]:
    """Columns of a good row that are ignored because an alternative was read."""
    asked = ("instruction", *QUESTIONS[:-1]) if "instruction" in row else QUESTIONS
    return [name for names in (asked, *alternatives) for name in [one for one in names if row.get(one)][1:]]


def read_answer(row: dict[str, Any], field: str) -> list[Message]:
    """An answer: text, one message, or the messages that end a conversation."""
    value = row.get(field)
    if not isinstance(value, dict) and not is_messages(value):
        return [{"role": "assistant", "content": read_text(row, field)}]
    answer = read_messages({field: [value]} if isinstance(value, dict) else row, field)
    check_answer(answer, field)
    return [{name: value for name, value in message.items() if name != "weight"} for message in answer]


def is_messages(value: object) -> bool:
    """Whether a value is a list of messages, or one as JSON text."""
    if isinstance(value, str):
        return value.startswith('[{"') and any(all(key in value for key in keys) for keys in _KEYS)
    return isinstance(value, list)


def check_different(first: list[Message], second: list[Message], field: str) -> None:
    """Raises BadRow if the two answers are equal."""
    if first == second:
        raise BadRow(field, "both answers are the same", "Remove this row: nothing can be preferred.")
