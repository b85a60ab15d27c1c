"""What a single row's texts tell: empty and broken-off answers, and sentences of other assistants."""

import re

from trainer.formats.canonical import Message, Row

LEAST_CUT = 60  # characters; a shorter answer may well end as it likes
PLACEHOLDERS = frozenset(
    {
        "n/a",
        "na",
        "none",
        "null",
        "nan",
        "nil",
        "todo",
        "tbd",
        "-",
        "–",
        "—",
        "...",
        "…",
        "?",
        ".",
        "{}",
        "[]",
        "undefined",
    }
)
LONGEST = max(map(len, PLACEHOLDERS))
_OTHERS = re.compile(
    r"\bas an? (?:ai|artificial intelligence|large|language)[ -](?:language |ai )?model\b"
    r"|\bi(?: a|['’])m (?:chatgpt|gpt-4|claude|bard|gemini|copilot|deepseek|qwen)\b"
    r"|\bi (?:was|am|have been) (?:created|developed|made|trained|built) by (?:openai|anthropic|google|meta|deepseek)\b"
    r"|\bmy (?:knowledge|training)(?: data)? cut-?off\b"
    r"|\bi(?: a|['’])m sorry,? but i (?:can(?:no|['’])t|am unable to|am not able to) "
    r"(?:assist|help|fulfil|comply|provide)"
    r"|\bi can(?:no|['’])t (?:assist with|fulfil+) (?:that|this|your) request\b"
)
# Of each such sentence, words without which there is none: one of the first, and one of the second.
_OTHERS_HINTS = (
    (("as a",), ("model",)),
    (
        ("i'm ", "i am ", "i’m "),
        ("chatgpt", "gpt-4", "claude", "bard", "gemini", "copilot", "deepseek", "qwen", "sorry"),
    ),
    ((" by ",), ("i was ", "i am ", "i have been ")),
    (("cut",), ("my ",)),
    ((" request",), ("assist with", "fulfil")),
)
_OTHERS_SIGNS = [[[one.encode("latin-1", "replace") for one in some] for some in both] for both in _OTHERS_HINTS]
LOOP = 32  # characters at the end of an answer that are there LOOPS times where it loops
LOOPS = 5
FEW_SIGNS = 8  # a line of dashes or of a table's cells is no loop
_GARBLED = re.compile("Ã[\u00a0-\u00bf\u0192\u201e\u2026]|â€[\u2122\u0153\u02dc\u201c\u201d\u00a6\u009d]")
_NEEDS_MORE = re.compile(r"(?:[,(\[{]|\b(?:the|an|and|or|of|because|und|oder|weil|et|ou))\Z")


def taught(row: Row) -> list[Message]:
    """The answers that the row teaches: not what is only read, rejected or bad."""
    if row.kind == "preference":
        return row.chosen
    if row.kind == "labelled":
        return row.completion if row.label else []
    return [one for one in row.messages if one["role"] == "assistant" and one.get("weight") != 0]


def question_of(row: Row) -> str:
    """What was asked last before the row's last answer."""
    asked = [one for one in (row.messages or row.prompt) if one["role"] == "user"]
    return (asked[-1]["content"] or "") if asked else ""


def empty_message(row: Row) -> str:
    """A message of the system or of a tool is empty; others are not let in."""
    said = [*row.messages, *row.prompt, *row.chosen, *row.rejected, *row.completion]
    places = [str(number) for number, message in enumerate(said, 1) if message["content"] == ""]
    return f"message {', '.join(places[:5])} is empty" if places else ""


def empty_answer(row: Row) -> str:
    for one in taught(row):
        text = (one["content"] or "").strip()
        if text.startswith("<think>") and not one.get("tool_calls") and not text.partition("</think>")[2]:
            return "the answer is only a thought"
        if not one.get("tool_calls") and (not text or (len(text) <= LONGEST and text.lower() in PLACEHOLDERS)):
            # A question about signs may be answered by one; "?" as an answer to it is none of our business.
            return f"the answer is only “{text}”" if text else "the answer is blank"
    return ""


def looping(row: Row) -> str:
    """The answer ends by saying the same again and again, as models do that were cut by a limit."""
    answers = taught(row)
    text = ((answers[-1]["content"] or "") if answers else "").rstrip()
    if len(text) < LOOPS * LOOP or text.count(tail := text[-LOOP:]) < LOOPS or len(set(tail)) <= FEW_SIGNS:
        return ""
    return f"ends by repeating “{tail[-24:].split(maxsplit=1)[-1]}”"


def garbled(row: Row) -> str:
    """UTF-8 that was read as Windows-1252 on its way, such as Ã© for é."""
    for one in row.messages or (*row.prompt, *row.chosen, *row.rejected, *row.completion):
        text = one["content"] or ""
        if not text.isascii() and ("Ã" in text or "â€" in text) and (seen := _GARBLED.search(text)):
            return f"holds “{seen[0]}”"
    return ""


def echo(row: Row) -> str:
    answers = taught(row)
    text = ((answers[-1]["content"] or "") if answers else "").strip()
    same = len(text) > 3 and text == question_of(row).strip()
    return "the answer is the question" if same else ""


def refusal(row: Row) -> str:
    for one in taught(row):
        text = one["content"] or ""
        if _may_be_others(text) and (found := _OTHERS.search(text.lower())):
            return f"“{found[0]}”"
    return ""


def _may_be_others(text: str) -> bool:
    """Told in a fraction of the time that small letters alone take to make of a text that is not all ASCII."""
    signs = _signs(text)
    return any([_one_of(some, signs) and _one_of(more, signs) for some, more in _OTHERS_SIGNS])


def _signs(text: str) -> bytes:
    """The text in latin-1 and small letters, with ? for what that has not."""
    return text.encode("latin-1", "replace").lower()


def _one_of(hints: list[bytes], signs: bytes) -> bool:
    return any([hint in signs for hint in hints])


def cut_off(row: Row) -> str:
    answers = taught(row)
    text = ((answers[-1]["content"] or "") if answers else "").rstrip()
    if answers and answers[-1].get("tool_calls"):
        return ""
    if text.count("\n```") % 2 != text.startswith("```"):
        return "a block of code is not closed"
    ends = len(text) >= LEAST_CUT and _NEEDS_MORE.search(text[-12:])
    return f"ends with “{text[-24:].split(maxsplit=1)[-1]}”" if ends else ""
