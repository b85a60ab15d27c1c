"""The findings of a check: errors by line and by kind, statistics, and their report."""

import json
import re
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, TextIO

import numpy as np

from trainer.formats.canonical import Content, Message
from trainer.formats.problems import Problem

MAX_ERRORS = 100  # listed one by one; all are counted
MAX_TEXT = 500  # characters shown of a line
LEAD = 100  # characters shown before the column of an error
MAX_KINDS = 50
MAX_COLUMNS = 100  # extra columns named in the report
MAX_MIXED_LINES = 10  # named per other format
MAX_BAD_CHARACTERS = 64 * 1024 * 1024  # in the file of bad lines


_AT_COLUMN = re.compile(r"\bcolumn (\d{1,9})\Z")


def printable(text: str, limit: int = MAX_TEXT) -> str:
    """Text that any database and page can hold: no NUL, no lone surrogates, limited length."""
    return text[:limit].encode("utf-8", "replace").decode().replace("\0", "\N{SYMBOL FOR NULL}")


def excerpt(text: str, field: str) -> tuple[str, int]:
    """A short part of a line around the column that `field` names, and that column's index in it, or -1."""
    named = _AT_COLUMN.search(field)
    at = int(named[1]) - 1 if named else -1
    if not 0 <= at <= len(text):
        return printable(text), -1
    start = at - LEAD if at > 2 * LEAD else 0
    shown = printable(f"{'…' if start else ''}{text[start:]}")
    return shown, at - start + bool(start)


class Findings:
    """Errors and ignored fields, in constant memory."""

    def __init__(self) -> None:
        self.errors: list[dict[str, Any]] = []
        self.counts: Counter[str] = Counter()
        self.ignored: Counter[str] = Counter()
        self._mixed: dict[str, list[int]] = {}
        self._mixed_rows: Counter[str] = Counter()

    def add(self, line: int, found: Problem, text: str) -> None:
        problem = printable(found.problem, 200)
        self.counts[problem if problem in self.counts or len(self.counts) < MAX_KINDS else "other"] += 1
        if len(self.errors) < MAX_ERRORS:
            field, fix = printable(found.field, 200), printable(found.fix)
            shown, at = excerpt(text, found.field)
            error = {"line": line, "field": field, "problem": problem, "fix": fix, "text": shown, "at": at}
            self.errors.append(error)

    def ignore(self, names: Iterable[str], prefix: str = "") -> None:
        for name in names:
            shown = prefix + printable(name, 60)
            if shown in self.ignored or len(self.ignored) < MAX_KINDS:
                self.ignored[shown] += 1

    def mix(self, line: int, name: str) -> None:
        """Count a row of another format than the file's."""
        self._mixed_rows[name] += 1
        lines = self._mixed.setdefault(name, [])
        if len(lines) < MAX_MIXED_LINES:
            lines.append(line)

    def extend(self, other: "Findings", *, lines_before: int) -> None:
        """Merge the ignored fields and mixed rows of the next section; its errors are added one by one."""
        for name, times in other.ignored.items():
            if name in self.ignored or len(self.ignored) < MAX_KINDS:
                self.ignored[name] += times
        self._mixed_rows.update(other._mixed_rows)
        for name, lines in other._mixed.items():
            room = MAX_MIXED_LINES - len(self._mixed.setdefault(name, []))
            self._mixed[name] += [line + lines_before for line in lines[:room]]

    @property
    def mixed(self) -> list[dict[str, Any]]:
        """The other formats, most frequent first: the number of rows, and where the first ones are."""
        return [{"format": n, "rows": rows, "lines": self._mixed[n]} for n, rows in self._mixed_rows.most_common()]


class BadLines:
    """Writes every bad line with its problem as a JSON line, up to MAX_BAD_CHARACTERS."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._left = MAX_BAD_CHARACTERS
        self.left_out = 0

    def add(self, line: int, found: Problem, text: str) -> None:
        record = {"line": line, "field": found.field, "problem": found.problem, "fix": found.fix, "text": text}
        written = json.dumps({n: printable(v, len(v)) if isinstance(v, str) else v for n, v in record.items()})
        self._left -= len(written)
        if self._left < 0:
            self.left_out += 1
            return
        self._out.write(f"{written}\n")


class Statistics:
    """Numbers over the good rows, in a few bytes of memory per row."""

    def __init__(self) -> None:
        self._turns = array("L")
        self._characters = array("L")
        self._answer_characters = array("L")
        self._counts: Counter[str] = Counter()
        self._columns: Counter[str] = Counter()

    def add(self, content: Content) -> None:
        messages = content.messages or [*content.prompt, *content.chosen, *content.rejected, *content.completion]
        turns = answered = 0
        characters = len(content.text or "")
        system = tools = empty = False
        for message in messages:
            text, role = message["content"], message["role"]
            size = len(text or "")
            characters += size
            if role == "assistant":
                turns += 1
                answered += size
            system = system or role == "system"
            tools = tools or "tool_calls" in message
            empty = empty or text == ""
        self._turns.append(turns)
        self._characters.append(characters)
        self._answer_characters.append(answered + len(content.text or ""))
        if content.extra:
            self._add_columns(dict.fromkeys(content.extra, 1))
        for name, true in (
            ("with_system", system),
            ("with_tools", tools or content.tools is not None),
            ("empty", empty),
            ("desirable", content.label is True),
        ):
            if true:
                self._counts[name] += 1

    def add_texts(self, conversations: list[list[Message]]) -> None:
        """The same for conversations of non-empty plain texts."""
        with_system = 0
        for messages in conversations:
            lengths = [len(message["content"]) for message in messages]
            if len(messages) == 2 and messages[0]["role"] == "user":  # nearly always
                turns, answered = 1, lengths[1]
            else:
                of_answers = [n for n, one in zip(lengths, messages, strict=True) if one["role"] == "assistant"]
                turns, answered = len(of_answers), sum(of_answers)
                with_system += any([one["role"] == "system" for one in messages])
            self._turns.append(turns)
            self._characters.append(sum(lengths))
            self._answer_characters.append(answered)
        self._counts["with_system"] += with_system

    def extend(self, other: "Statistics") -> None:
        """Merge the statistics of the next section."""
        self._turns.extend(other._turns)
        self._characters.extend(other._characters)
        self._answer_characters.extend(other._answer_characters)
        self._counts.update(other._counts)
        self._add_columns(other._columns)

    def _add_columns(self, rows: Mapping[str, int]) -> None:
        for name, count in rows.items():
            if name in self._columns or len(self._columns) < MAX_COLUMNS:
                self._columns[name] += count

    def to_dict(self, *, duplicates: int) -> dict[str, Any]:
        return {
            "turns": _spread(self._turns),
            "characters": _spread(self._characters),
            "answer_characters": _spread(self._answer_characters),
            "with_system": self._counts["with_system"],
            "with_tools": self._counts["with_tools"],
            "empty": self._counts["empty"],
            "desirable": self._counts["desirable"],
            "duplicates": duplicates,
            "columns": most_common(self._columns),
        }


def _spread(values: "array[int]") -> dict[str, int]:
    if not values:
        return {"total": 0, "p50": 0, "p95": 0, "max": 0}
    ordered = np.sort(np.asarray(values))
    last = len(ordered) - 1
    at = {"p50": last * 50 // 100, "p95": last * 95 // 100, "max": last}
    return {"total": int(ordered.sum())} | {name: int(ordered[place]) for name, place in at.items()}


def most_common(counts: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
