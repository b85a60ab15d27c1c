"""OpenAI's preference layout: `input` with messages and tools, `preferred_output` and `non_preferred_output`."""

from typing import Any

from trainer.formats.canonical import Content
from trainer.formats.conversations import check_prompt, read_messages, with_system
from trainer.formats.family import Family
from trainer.formats.fields import decode_if_json
from trainer.formats.problems import BadRow, json_type
from trainer.formats.question import check_different, read_answer
from trainer.formats.tools import tools_of

GOOD, BAD = "preferred_output", "non_preferred_output"


def matches(row: dict[str, Any]) -> float:
    """How much a row looks like this family, from 0 to 1."""
    return (("input" in row) + (GOOD in row) + (BAD in row)) / 3 if GOOD in row or BAD in row else 0.0


def read(row: dict[str, Any]) -> Content:
    """The row, with its prompt taken from `input`."""
    asked = decode_if_json(row.get("input"), "input")
    if not isinstance(asked, dict):
        problem = f"must be an object, not {json_type(asked)}" if "input" in row else "field is missing"
        raise BadRow("input", problem, 'Use {"messages": […]}, with "tools" beside it where there are any.')
    try:
        prompt, tools = with_system(read_messages(asked, "messages"), asked), tools_of(asked)
        check_prompt(prompt, "messages")
    except BadRow as bad:
        raise bad.under("input") from None
    chosen, rejected = read_answer(row, GOOD), read_answer(row, BAD)
    check_different(chosen, rejected, BAD)
    return Content(prompt=prompt, chosen=chosen, rejected=rejected, tools=tools)


FAMILY = Family(
    name="preferred_output",
    kind="preference",
    saw='"input", "preferred_output" and "non_preferred_output" (DPO as OpenAI has it)',
    fields=frozenset({"input", GOOD, BAD}),
    matches=matches,
    read=read,
)
