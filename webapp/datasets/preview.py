"""What the pages show of a version: its rows as chat, its state and its findings as sentences."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from trainer.events import RowsRead
from trainer.formats import Row, read_rows
from trainer.formats.detect import FAMILIES
from trainer.formats.extra import as_text
from trainer.formats.survey_columns import column_tag
from webapp.common.words import number_text
from webapp.datasets import hub
from webapp.datasets.child import last_event
from webapp.datasets.models import DatasetVersion, VersionStatus

TEASER_ROWS = 3
MOST_SHOWN = 20_000  # characters of one message; a page of the longest rows stays a page
MOST_COPIED = 200_000  # characters of a row's JSON where it is there to be copied
FORMATS = {family.name: family.name.replace("/", " and ").capitalize() for family in FAMILIES} | {
    "alpaca": "Alpaca",
    "messages": "Chat messages",
    "prompt/completion": "Prompt and completion",
    "text": "Plain text",
    "preference": "Chosen and rejected",
    "kto": "Good and bad completions",
    "sharegpt": "ShareGPT conversations",
    "chains": "Chained questions and answers",
    "preferred_output": "Preferred output (OpenAI)",
    "mapping": "Columns chosen by hand",
}
CERTAINTY = ((0.95, "sure"), (0.75, "fairly sure"), (0.0, "not sure"))


@dataclass(frozen=True)
class ShownMessage:
    """A message as a bubble. `cut` is how many characters it has when not all are shown.

    reasoning: what it thought before; templates may pass over that.
    """

    role: str
    text: str
    cut: int
    calls: list[str]
    untrained: bool
    reasoning: str = ""


@dataclass(frozen=True)
class ShownAnswer:
    """One of the answers that a row compares, with the word for what it is and the badge's colour."""

    name: str
    tone: str
    messages: list[ShownMessage]


@dataclass(frozen=True)
class ShownRow:
    """A row with its number in the version, from 1. `messages` is the prompt where answers are compared.

    json_cut: how many characters its JSON has when not all are here. beside: what its other columns say, each with the
    filter that finds the rows which say the same.
    """

    number: int
    line: int
    messages: list[ShownMessage]
    answers: list[ShownAnswer]
    json: str
    json_cut: int
    beside: list[tuple[str, str, str]]

    @property
    def may_be_left_out(self) -> bool:
        """Whether it has what not every base model's template writes."""
        said = [*self.messages, *(one for answer in self.answers for one in answer.messages)]
        return any(one.reasoning or one.calls for one in said)


def first_rows(version: DatasetVersion) -> list[ShownRow]:
    return [shown_row(row, number) for number, row in enumerate(read_rows(version.rows_path, 0, TEASER_ROWS), 1)]


def shown_row(row: Row, number: int, most_json: int = MOST_SHOWN) -> ShownRow:
    text = json.dumps(row.shape(), ensure_ascii=False, indent=2)
    plain = [] if row.text is None else [{"role": "text", "content": row.text}]
    messages = [_bubble(message) for message in [*plain, *row.messages, *row.prompt]]
    judged = ("Good", "good") if row.label else ("Bad", "bad")
    named = [("Chosen", "good", row.chosen), ("Rejected", "bad", row.rejected), (*judged, row.completion)]
    answers = [ShownAnswer(name, tone, [_bubble(one) for one in said]) for name, tone, said in named if said]
    json_cut = len(text) if len(text) > most_json else 0
    beside = [(name, as_text(value), column_tag(name, value)) for name, value in row.extra.items()]
    return ShownRow(number, row.line, messages, answers, text[:most_json], json_cut, beside)


def _bubble(message: dict[str, Any]) -> ShownMessage:
    text = message["content"] or ""
    functions = [call["function"] for call in message.get("tool_calls", ())]
    calls = [f"{one['name']}({json.dumps(one['arguments'], ensure_ascii=False)})"[:MOST_SHOWN] for one in functions]
    cut = len(text) if len(text) > MOST_SHOWN else 0
    thought = (message.get("reasoning_content") or "")[:MOST_SHOWN]
    return ShownMessage(message["role"], text[:MOST_SHOWN], cut, calls, message.get("weight") == 0, thought)


def read_as(report: dict[str, Any]) -> str:
    """What the file was taken for and how sure that is; empty in reports of earlier releases."""
    if not report.get("saw"):
        return ""
    if not (name := report.get("format")):
        return f"The format was not recognised. {report['saw']}"
    if name == "mapping":
        return f"Read as you said: {report['saw']}"
    sure = next(word for least, word in CERTAINTY if report.get("sure", 0) >= least)
    return f"Read as {FORMATS.get(name, name)} ({sure}). {report['saw']}"


def state_sentence(version: DatasetVersion) -> str:
    """What a person should know first."""
    report = version.report
    if version.status == VersionStatus.UPLOADED:
        return "Uploaded; the inspection begins in a moment."
    if version.status == VersionStatus.INSPECTING and hub.is_to_fetch(version):
        return hub.progress(version)
    if version.status == VersionStatus.INSPECTING:
        return _checked_so_far(version)
    if version.is_ready:
        return f"{_rows(version.row_count)}, ready for training."
    return _rejected(report)


def _checked_so_far(version: DatasetVersion) -> str:
    """How far its inspection is."""
    said = last_event(version.aside(f"inspection-{version.inspection}"))
    if not isinstance(said, RowsRead):
        return "Every row is being checked."
    percent = checked_percent(version)
    share = "" if percent is None else f", {percent} % of the file"
    return f"Every row is being checked: {_rows(said.rows)} so far{share}."


def checked_percent(version: DatasetVersion) -> int | None:
    """How much of its file is read; None where that is not known."""
    said = last_event(version.aside(f"inspection-{version.inspection}")) if version.is_pending else None
    return 100 * said.done // said.of if isinstance(said, RowsRead) and said.of else None


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


def findings(report: dict[str, Any], *, surveyed: bool) -> list[tuple[str, str]]:
    """Sentences about what the check found, each with its kind: info or warn. A survey tells more of some."""
    statistics = report.get("statistics", {})
    found = [("info", text) for text in report.get("repairs", [])]
    if bad := report.get("bad_rows"):
        found.append(("warn", f"{_rows(bad)} could not be used and left out: see the errors below."))
    if (twice := statistics.get("duplicates")) and not surveyed:
        repeat = "repeats" if twice == 1 else "repeat"
        text = f"{_rows(twice)} {repeat} an earlier row exactly. Repeated rows count more in training."
        found.append(("warn", text))
    if (empty := statistics.get("empty")) and not surveyed:
        found.append(("info", f"{_rows(empty)} with an empty system or tool message."))
    columns = statistics.get("columns", {})
    if columns:
        text = "Other columns are kept beside the rows, to filter and to divide by; training does not read them"
        found.append(("info", f"{text}: {_names(columns)}."))
    if ignored := [name for name in report.get("ignored_fields", {}) if name not in columns]:
        found.append(("info", f"Fields that training does not read and that are not kept: {_names(ignored)}."))
    return found


def _names(names: Iterable[str]) -> str:
    first = list(names)
    return ", ".join(first[:6]) + (" and others" if len(first) > 6 else "")


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{number_text(count)} rows"
