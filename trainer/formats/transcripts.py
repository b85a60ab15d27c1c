"""Conversations as one text with `Human:` and `Assistant:` before each turn (Anthropic's hh-rlhf, Nectar)."""

import re

from trainer.formats.canonical import Message
from trainer.formats.problems import BadRow

_MARK = re.compile(r"(?:^|\n\n)(Human|Assistant):[ \n]?")
_ROLES = {"Human": "user", "Assistant": "assistant"}


def is_transcript(text: str) -> bool:
    """Whether a text is such a conversation, judged by its start."""
    return text.startswith(("\n\nHuman:", "Human:")) and "\n\nAssistant:" in text


def read_transcript(transcript: str, field: str) -> list[Message]:
    """Its messages. A final `Assistant:` without text is left out: the answer goes there."""
    pieces = _MARK.split(transcript)
    turns = [(_ROLES[name], text.strip()) for name, text in zip(pieces[1::2], pieces[2::2], strict=True)]
    if turns[-1] == ("assistant", ""):
        turns.pop()
    if not all(text for _, text in turns):
        raise BadRow(field, "holds an empty turn", "Write a text behind each Human: and Assistant:.")
    return [{"role": role, "content": text} for role, text in turns]
