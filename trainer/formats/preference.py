"""The preference family: a prompt with a chosen and a rejected answer, the prompt given apart or inside both."""

from typing import Any

from trainer.formats.canonical import Content, Kind, Message
from trainer.formats.messages import check_answer, check_prompt, read_messages, read_text, read_tools
from trainer.formats.problems import BadRow
from trainer.formats.question import PROMPT_FIELDS, differ, read_answer, read_prompt

NAME = "preference"
KIND: Kind = "preference"
FIELDS = PROMPT_FIELDS | {"chosen", "rejected"}
MESSAGE_FIELDS: frozenset[str] = frozenset()


def matches(row: dict[str, Any]) -> float:
    """How much a row looks like this family, 0 to 1."""
    return 0.5 * (("chosen" in row) + ("rejected" in row))


def to_content(row: dict[str, Any]) -> Content:
    """The row as TRL describes it (huggingface.co/docs/trl/dataset_formats): explicit or implicit prompt."""
    if _is_whole(row.get("chosen")) and _is_whole(row.get("rejected")):
        prompt, chosen, rejected = _parted(row)
    elif not PROMPT_FIELDS & row.keys() and isinstance(row.get("chosen"), str):
        prompt, chosen, rejected = _parted_text(row)
    else:
        prompt, chosen, rejected = read_prompt(row), read_answer(row, "chosen"), read_answer(row, "rejected")
    differ(chosen, rejected, "rejected")
    return Content(prompt=prompt, chosen=chosen, rejected=rejected, tools=read_tools(row.get("tools")))


def _is_whole(value: object) -> bool:
    """Whether a list of messages begins with the question, and so is a conversation and not an answer."""
    first = value[0] if isinstance(value, list) and value else None
    return isinstance(first, dict) and first.get("role") in ("system", "developer", "user")


def _parted(row: dict[str, Any]) -> tuple[list[Message], list[Message], list[Message]]:
    """Two conversations parted where they begin to differ."""
    chosen, rejected = read_messages(row, "chosen"), read_messages(row, "rejected")
    differ(chosen, rejected, "rejected")
    same = next((at for at, pair in enumerate(zip(chosen, rejected, strict=False)) if pair[0] != pair[1]), None)
    if not same:
        raise BadRow("rejected", "no prompt in common", "Begin chosen and rejected with the same question.")
    prompt = chosen[:same]
    check_prompt(prompt, "chosen")
    for field, answer in (("chosen", chosen[same:]), ("rejected", rejected[same:])):
        check_answer(answer, field)
    return prompt, chosen[same:], rejected[same:]


def _parted_text(row: dict[str, Any]) -> tuple[list[Message], list[Message], list[Message]]:
    """Two texts with a common beginning, which is the prompt up to its last whole word."""
    chosen, rejected = read_text(row, "chosen"), read_text(row, "rejected")
    same = next((at for at, pair in enumerate(zip(chosen, rejected, strict=False)) if pair[0] != pair[1]), None)
    same = min(len(chosen), len(rejected)) if same is None else same
    while same and not chosen[same - 1].isspace():
        same -= 1
    asked, answers = chosen[:same].strip(), (chosen[same:].strip(), rejected[same:].strip())
    if not asked or not all(answers):
        raise BadRow("prompt", "field is missing", 'Add "prompt" with the question to this row.')
    first, second = ([{"role": "assistant", "content": answer}] for answer in answers)
    return [{"role": "user", "content": asked}], first, second
