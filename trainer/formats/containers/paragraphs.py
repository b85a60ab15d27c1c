"""Plain text: one row per paragraph if there are blank lines, otherwise one per line."""

from collections.abc import Iterator
from dataclasses import replace
from typing import BinaryIO

from trainer.formats.containers.encodings import not_utf8
from trainer.formats.containers.record import MAX_RECORD, NUL, SEPARATORS, TOO_LONG, Notes, Record
from trainer.formats.problems import Problem


def has_paragraphs(head: str) -> bool:
    """Whether there is a blank line inside these first characters."""
    return any(not line.strip() for line in head.strip().split("\n"))


class Gathered:
    """The lines of the current row."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._size = 0
        self._line = 0
        self._found: Problem | None = None

    def add(self, number: int, raw: bytes) -> None:
        self._line = self._line or number
        self._size += len(raw)
        if b"\0" in raw:
            self._found = self._found or replace(NUL, field="text")
        if self._size > MAX_RECORD:
            self._found = self._found or TOO_LONG
            return
        try:
            self._lines.append(raw.decode())
        except UnicodeDecodeError as error:
            self._found = self._found or not_utf8(raw, error)
            self._lines.append(raw[:2000].decode(errors="replace"))

    def record(self, notes: Notes) -> Record:
        text = "".join(self._lines).strip()
        notes["separators"] += any(mark in text for mark in SEPARATORS)
        return Record(self._line, text[:2000] if self._found else text, {"text": text}, self._found)


def read_text(file: BinaryIO, notes: Notes, *, paragraphs: bool) -> Iterator[Record]:
    """Each row as {"text": …}."""
    notes["paragraphs" if paragraphs else "lines"] += 1
    number, whole = 0, True  # `whole`: whether the last piece ended its line
    gathered: Gathered | None = None
    while raw := file.readline(MAX_RECORD):
        number += whole
        whole = raw.endswith(b"\n")
        if not raw.isspace():
            gathered = gathered or Gathered()
            gathered.add(number, raw)
        if gathered and whole and (raw.isspace() or not paragraphs):
            yield gathered.record(notes)
            gathered = None
    if gathered:
        yield gathered.record(notes)
