"""The preference family: a chosen and a rejected answer, with the prompt in its own column or at the start of both."""

import re
from typing import Any

from trainer.formats.canonical import Content, Message
from trainer.formats.conversations import (
    check_answer,
    check_prompt,
    column_with,
    read_messages,
    turn_warnings,
    with_system,
)
from trainer.formats.family import Family
from trainer.formats.fields import read_text
from trainer.formats.problems import BadRow
from trainer.formats.question import (
    PROMPT_FIELDS,
    QUESTIONS,
    check_different,
    is_messages,
    read_answer,
    read_prompt,
    unread,
)
from trainer.formats.tools import tools_of
from trainer.formats.transcripts import is_transcript, read_transcript

# Column names of the two answers: TRL and LLaMA-Factory, Argilla, AutoTrain.
NAMES = (("chosen", "rejected"), ("chosen_response", "rejected_response"), ("text", "rejected_text"))
# Whose layout it is, by the columns of the question and the chosen answer.
LAYOUT_NAMES = {
    ("prompt", "chosen"): "DPO as TRL has it",
    ("instruction", "chosen"): "DPO as LLaMA-Factory has it, alpaca",
    ("instruction", "chosen_response"): "DPO as Argilla has it",
    ("question", "chosen"): "DPO as Intel's Orca pairs have it",
    ("prompt", "text"): "DPO as AutoTrain has it",
}
COLUMNS = ("conversations", "conversation")  # of a prompt; conversations in "messages" usually repeat the chosen answer

_STARTS_WITH_PROMPT = re.compile(r'\[\{"(?:role|from)":\s*"(?:system|developer|user|human)"')
OTHER_NAMES = frozenset(name for pair in NAMES for name in pair) - {"text"}

PromptAndAnswers = tuple[list[Message], list[Message], list[Message]]


def matches(row: dict[str, Any]) -> float:
    """How much a row looks like this family, from 0 to 1."""
    chosen, rejected = _names(row)
    return 0.5 * ((chosen in row and (chosen != "text" or rejected in row)) + (rejected in row))


def read(row: dict[str, Any]) -> Content:
    """The row with an explicit or implicit prompt, as TRL defines it (huggingface.co/docs/trl/dataset_formats)."""
    names = _names(row)
    if _is_conversation(row.get(names[0])) and _is_conversation(row.get(names[1])):
        prompt, chosen, rejected = _split_conversations(
            read_messages(row, names[0]), read_messages(row, names[1]), row, names
        )
    elif column := _prompt_column(row):
        prompt = with_system(read_messages(row, column), row)
        check_prompt(prompt, column)
        chosen, rejected = read_answer(row, names[0]), read_answer(row, names[1])
    elif not PROMPT_FIELDS & row.keys() - {"tools", "system"} and isinstance(row.get(names[0]), str):
        prompt, chosen, rejected = _split_texts(row, names)
    else:
        prompt, chosen, rejected = read_prompt(row), read_answer(row, names[0]), read_answer(row, names[1])
    check_different(chosen, rejected, names[1])
    return Content(prompt=prompt, chosen=chosen, rejected=rejected, tools=tools_of(row))


def ignored(row: dict[str, Any]) -> list[str]:
    names = _names(row)
    left = [name for name in OTHER_NAMES & row.keys() if name not in names]
    if _is_conversation(row.get(names[0])):  # the conversations contain their prompt
        return left + [name for name in ("instruction", *QUESTIONS, *COLUMNS) if row.get(name)]
    return left + unread(row)


def _names(row: dict[str, Any]) -> tuple[str, str]:
    return next((pair for pair in NAMES if pair[1] in row), NAMES[0])


def _prompt_column(row: dict[str, Any]) -> str | None:
    """LLaMA-Factory's ShareGPT layout: a conversation up to the answer; the two answers are in columns of their own."""
    if not any(name in row for name in COLUMNS):
        return None
    column = column_with(row, "from") or column_with(row, "role")
    return column if column in COLUMNS else None


def _is_conversation(value: object) -> bool:
    """Whether a list of messages begins with the prompt, rather than being just an answer."""
    if isinstance(value, str):
        return is_messages(value) and bool(_STARTS_WITH_PROMPT.match(value))
    first = value[0] if isinstance(value, list) and value else None
    role = first.get("role", first.get("from")) if isinstance(first, dict) else None
    return isinstance(role, str) and role in ("system", "developer", "user", "human")


def _split_conversations(
    chosen: list[Message], rejected: list[Message], row: dict[str, Any], names: tuple[str, str]
) -> PromptAndAnswers:
    """Two conversations split into their common prompt and their answers. Raises BadRow."""
    check_different(chosen, rejected, names[1])
    same = next((at for at, pair in enumerate(zip(chosen, rejected, strict=False)) if pair[0] != pair[1]), None)
    if not same:
        raise BadRow(names[1], "no prompt in common", "Begin chosen and rejected with the same question.")
    check_prompt(chosen[:same], names[0])
    for field, answer in zip(names, (chosen[same:], rejected[same:]), strict=True):
        check_answer(answer, field)
    return with_system(chosen[:same], row), _unweighted(chosen[same:]), _unweighted(rejected[same:])


def _unweighted(answer: list[Message]) -> list[Message]:
    return [{name: one for name, one in message.items() if name != "weight"} for message in answer]


def _split_texts(row: dict[str, Any], names: tuple[str, str]) -> PromptAndAnswers:
    """Two transcripts, or two texts whose common beginning, up to the last whole word, is the prompt."""
    chosen, rejected = read_text(row, names[0]), read_text(row, names[1])
    if is_transcript(chosen) and is_transcript(rejected):
        return _split_conversations(read_transcript(chosen, names[0]), read_transcript(rejected, names[1]), row, names)
    same = next((at for at, pair in enumerate(zip(chosen, rejected, strict=False)) if pair[0] != pair[1]), None)
    same = min(len(chosen), len(rejected)) if same is None else same
    while same and not chosen[same - 1].isspace():
        same -= 1
    asked, answers = chosen[:same].strip(), (chosen[same:].strip(), rejected[same:].strip())
    if not asked or not all(answers):
        raise BadRow("prompt", "field is missing", 'Add "prompt" with the question to this row.')
    first, second = ([{"role": "assistant", "content": answer}] for answer in answers)
    return with_system([{"role": "user", "content": asked}], row), first, second


def layout(row: dict[str, Any]) -> str:
    """Where the row has its question, and how it holds its answers."""
    names = _names(row)
    answers = f'"{names[0]}" and "{names[1]}"'
    chosen = row.get(names[0])
    if _is_conversation(chosen):
        return f"{answers} as whole conversations (DPO, the question in both)"
    if column := _prompt_column(row):
        return f'"{column}" up to the answers {answers} (DPO as LLaMA-Factory has it, ShareGPT)'
    asked = next((name for name in ("instruction", *QUESTIONS) if name in row), "")
    if not asked:
        whole = isinstance(chosen, str) and is_transcript(chosen)
        form = "whole dialogues" if whole else "texts that begin alike"
        return f"{answers} as {form} (DPO, the question in both)"
    return f'"{asked}", {answers} ({LAYOUT_NAMES.get((asked, names[0]), "DPO")})'


FAMILY = Family(
    name="preference",
    kind="preference",
    saw='"chosen" and "rejected" answers (DPO)',
    layout=layout,
    fields=PROMPT_FIELDS | OTHER_NAMES | set(COLUMNS),
    matches=matches,
    read=read,
    reads=_names,
    ignored=ignored,
    repaired=lambda row: turn_warnings(row, *_names(row), *QUESTIONS, *COLUMNS),
)
