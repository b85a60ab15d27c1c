"""What the pages show of a version: its rows as chat, its state and its findings as sentences."""

import json
from dataclasses import dataclass
from typing import Any

from trainer.formats import Row, read_rows
from webapp.common.words import number_text
from webapp.datasets.models import DatasetVersion, VersionStatus

ROWS_PER_PAGE = 20
TEASER_ROWS = 3
MOST_SHOWN = 20_000  # characters of one message; a page of the longest rows stays a page
FORMATS = {
    "alpaca": "Alpaca",
    "messages": "Chat messages",
    "prompt/completion": "Prompt and completion",
    "text": "Plain text",
    "preference": "Chosen and rejected",
    "kto": "Good and bad completions",
}


@dataclass(frozen=True)
class ShownMessage:
    """A message as a bubble. `cut` is how many characters it has when not all are shown."""

    role: str
    text: str
    cut: int
    calls: list[str]
    untrained: bool


@dataclass(frozen=True)
class ShownAnswer:
    """One of the answers that a row compares, with the word for what it is and the badge's colour."""

    name: str
    tone: str
    messages: list[ShownMessage]


@dataclass(frozen=True)
class ShownRow:
    """A row with its number in the version, from 1. `messages` is the prompt where answers are compared."""

    number: int
    line: int
    messages: list[ShownMessage]
    answers: list[ShownAnswer]
    json: str


@dataclass(frozen=True)
class Page:
    """Some rows of a version, and where among all of them they are; `number` counts from 1."""

    rows: list[ShownRow]
    number: int
    of: int

    @property
    def previous(self) -> int | None:
        return self.number - 1 if self.number > 1 else None

    @property
    def next(self) -> int | None:
        return self.number + 1 if self.number < self.of else None


def page_of(version: DatasetVersion, asked: str | None) -> Page:
    """The page with the number a visitor asked for; the nearest one that exists for anything else."""
    of = max(1, -(-version.row_count // ROWS_PER_PAGE))
    number = int(asked) if asked and asked.isascii() and asked.isdigit() and len(asked) < 10 else 1
    number = min(max(number, 1), of)
    return Page(_shown_rows(version, (number - 1) * ROWS_PER_PAGE, ROWS_PER_PAGE), number, of)


def first_rows(version: DatasetVersion) -> list[ShownRow]:
    return _shown_rows(version, 0, TEASER_ROWS)


def _shown_rows(version: DatasetVersion, start: int, count: int) -> list[ShownRow]:
    rows = read_rows(version.rows_path, start, count)
    return [_shown(row, number) for number, row in enumerate(rows, start + 1)]


def _shown(row: Row, number: int) -> ShownRow:
    text = json.dumps(row.shape(), ensure_ascii=False, indent=2)
    plain = [] if row.text is None else [{"role": "text", "content": row.text}]
    messages = [_bubble(message) for message in [*plain, *row.messages, *row.prompt]]
    judged = ("Good", "good") if row.label else ("Bad", "bad")
    named = [("Chosen", "good", row.chosen), ("Rejected", "bad", row.rejected), (*judged, row.completion)]
    answers = [ShownAnswer(name, tone, [_bubble(one) for one in said]) for name, tone, said in named if said]
    return ShownRow(number, row.line, messages, answers, text[:MOST_SHOWN])


def _bubble(message: dict[str, Any]) -> ShownMessage:
    text = message["content"] or ""
    functions = [call["function"] for call in message.get("tool_calls", ())]
    calls = [f"{one['name']}({json.dumps(one['arguments'], ensure_ascii=False)})"[:MOST_SHOWN] for one in functions]
    cut = len(text) if len(text) > MOST_SHOWN else 0
    return ShownMessage(message["role"], text[:MOST_SHOWN], cut, calls, message.get("weight") == 0)


def state_sentence(version: DatasetVersion) -> str:
    """What a person should know first."""
    report = version.report
    if version.status == VersionStatus.UPLOADED:
        return "Uploaded; the inspection begins in a moment."
    if version.status == VersionStatus.INSPECTING:
        return "Every row is being checked."
    if version.is_ready:
        return f"{_rows(version.row_count)}, ready for training."
    return _rejected(report)


def _rejected(report: dict[str, Any]) -> str:
    """Why nothing can be trained on it."""
    bad, good = report.get("bad_rows", 0), report.get("rows", 0)
    if failure := report.get("failure"):
        return str(failure["text"])
    if not (line := report.get("stopped_at")):
        return f"{number_text(bad)} of {_rows(bad + good)} cannot be used."
    if not bad + good and report.get("errors"):
        return f"The file cannot be used: {report['errors'][-1]['problem']}."
    return f"The file cannot be read beyond line {number_text(line)}."


def findings(report: dict[str, Any]) -> list[tuple[str, str]]:
    """Sentences about what is worth knowing, each with its kind: good, info or warn."""
    statistics = report.get("statistics", {})
    found = [("info", text) for text in report.get("repairs", [])]
    if bad := report.get("bad_rows"):
        found.append(("warn", f"{_rows(bad)} could not be used and left out: see the errors below."))
    if twice := statistics.get("duplicates"):
        found.append(("warn", f"{_rows(twice)} repeat an earlier row exactly. Repeated rows count more in training."))
    if empty := statistics.get("empty"):
        found.append(("info", f"{_rows(empty)} with an empty system or tool message."))
    if ignored := report.get("ignored_fields"):
        names = ", ".join(list(ignored)[:6]) + (" and others" if len(ignored) > 6 else "")
        found.append(("info", f"Fields that training does not read: {names}."))
    return found or [("good", "Every row is good: no errors, no repeated rows, nothing passed over.")]


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{number_text(count)} rows"
