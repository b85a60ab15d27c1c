"""Findings in the texts of a single row: empty, cut-off or looping answers, phrases of other assistants."""

import re

from trainer.formats.canonical import Message, Row

MIN_CUT_LENGTH = 60  # characters; shorter answers may end in any way
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
_OTHER_ASSISTANT = re.compile(
    r"\bas an? (?:ai|artificial intelligence|large|language)[ -](?:language |ai )?model\b"
    r"|\bi(?: a|['’])m (?:chatgpt|gpt-4|claude|bard|gemini|copilot|deepseek|qwen)\b"
    r"|\bi (?:was|am|have been) (?:created|developed|made|trained|built) by (?:openai|anthropic|google|meta|deepseek)\b"
    r"|\bmy (?:knowledge|training)(?: data)? cut-?off\b"
    r"|\bi(?: a|['’])m sorry,? but i (?:can(?:no|['’])t|am unable to|am not able to) "
    r"(?:assist|help|fulfil|comply|provide)"
    r"|\bi can(?:no|['’])t (?:assist with|fulfil+) (?:that|this|your) request\b"
)
# Every match contains a word of the first group and one of the second.
_OTHER_ASSISTANT_HINTS = (
    (("as a",), ("model",)),
    (
        ("i'm ", "i am ", "i’m "),
        ("chatgpt", "gpt-4", "claude", "bard", "gemini", "copilot", "deepseek", "qwen", "sorry"),
    ),
    ((" by ",), ("i was ", "i am ", "i have been ")),
    (("cut",), ("my ",)),
    ((" request",), ("assist with", "fulfil")),
)
_OTHER_ASSISTANT_BYTES = [
    [[one.encode("latin-1", "replace") for one in some] for some in both] for both in _OTHER_ASSISTANT_HINTS
]
LOOP_LENGTH = 32  # characters at the end of an answer; it loops if they occur MIN_LOOPS times
MIN_LOOPS = 5
MAX_FILLER_CHARACTERS = 8  # different ones; lines of dashes and table cells are no loops
_GARBLED = re.compile("Ã[\u00a0-\u00bf\u0192\u201e\u2026]|â€[\u2122\u0153\u02dc\u201c\u201d\u00a6\u009d]")
_NEEDS_MORE = re.compile(r"(?:[,(\[{]|\b(?:the|an|and|or|of|because|und|oder|weil|et|ou))\Z")


def trained_answers(row: Row) -> list[Message]:
    """The answers a row trains: not those that are context only, rejected or labelled bad."""
    if row.kind == "preference":
        return row.chosen
    if row.kind == "labelled":
        return row.completion if row.label else []
    return [one for one in row.messages if one["role"] == "assistant" and one.get("weight") != 0]


def question_of(row: Row) -> str:
    """The last question before the row's last answer."""
    asked = [one for one in (row.messages or row.prompt) if one["role"] == "user"]
    return (asked[-1]["content"] or "") if asked else ""


def empty_message(row: Row) -> str:
    """An empty system or tool message; the check refuses other empty messages."""
    messages = [*row.messages, *row.prompt, *row.chosen, *row.rejected, *row.completion]
    places = [str(number) for number, message in enumerate(messages, 1) if message["content"] == ""]
    return f"message {', '.join(places[:5])} is empty" if places else ""


def empty_answer(row: Row) -> str:
    for one in trained_answers(row):
        text = (one["content"] or "").strip()
        if text.startswith("<think>") and not one.get("tool_calls") and not text.partition("</think>")[2]:
            return "the answer is only a thought"
        if not one.get("tool_calls") and (not text or (len(text) <= LONGEST and text.lower() in PLACEHOLDERS)):
            # "?" is a placeholder too, although it may be the right answer to a question about punctuation.
            return f"the answer is only “{text}”" if text else "the answer is blank"
    return ""


def looping(row: Row) -> str:
    """The answer ends in a repeated text, as models write when they do not stop."""
    answers = trained_answers(row)
    text = ((answers[-1]["content"] or "") if answers else "").rstrip()
    if (
        len(text) < MIN_LOOPS * LOOP_LENGTH
        or text.count(tail := text[-LOOP_LENGTH:]) < MIN_LOOPS
        or len(set(tail)) <= MAX_FILLER_CHARACTERS
    ):
        return ""
    return f"ends by repeating “{tail[-24:].split(maxsplit=1)[-1]}”"


def garbled(row: Row) -> str:
    """UTF-8 that was decoded as Windows-1252, such as Ã© for é."""
    for one in row.messages or (*row.prompt, *row.chosen, *row.rejected, *row.completion):
        text = one["content"] or ""
        if not text.isascii() and ("Ã" in text or "â€" in text) and (seen := _GARBLED.search(text)):
            return f"holds “{seen[0]}”"
    return ""


def echo(row: Row) -> str:
    answers = trained_answers(row)
    text = ((answers[-1]["content"] or "") if answers else "").strip()
    same = len(text) > 3 and text == question_of(row).strip()
    return "the answer is the question" if same else ""


def refusal(row: Row) -> str:
    for one in trained_answers(row):
        text = one["content"] or ""
        if _may_be_other_assistant(text) and (found := _OTHER_ASSISTANT.search(text.lower())):
            return f"“{found[0]}”"
    return ""


def _may_be_other_assistant(text: str) -> bool:
    """A prefilter on Latin-1 bytes: a fraction of the time that lower() takes for text beyond ASCII."""
    lowered = _latin_lower(text)
    return any([_one_of(some, lowered) and _one_of(more, lowered) for some, more in _OTHER_ASSISTANT_BYTES])


def _latin_lower(text: str) -> bytes:
    """The text in Latin-1 and lower case, with ? for other characters."""
    return text.encode("latin-1", "replace").lower()


def _one_of(hints: list[bytes], lowered: bytes) -> bool:
    return any([hint in lowered for hint in hints])


def cut_off(row: Row) -> str:
    answers = trained_answers(row)
    text = ((answers[-1]["content"] or "") if answers else "").rstrip()
    if answers and answers[-1].get("tool_calls"):
        return ""
    if text.count("\n```") % 2 != text.startswith("```"):
        return "a block of code is not closed"
    ends = len(text) >= MIN_CUT_LENGTH and _NEEDS_MORE.search(text[-12:])
    return f"ends with “{text[-24:].split(maxsplit=1)[-1]}”" if ends else ""
