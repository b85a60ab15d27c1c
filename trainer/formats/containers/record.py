"""One row as it is in a file, and notes on what was corrected while reading."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trainer.formats.problems import Problem

CHUNK = 1024 * 1024  # bytes read at once
MAX_RECORD = 4 * 1024 * 1024  # bytes of one row; far longer than any context window
TOO_LONG = Problem("", "row longer than 4 MB", "Split this row into several.")
NUL = Problem("", "NUL character", "Remove it: no text holds one, and a file full of them was not written to its end.")
MAX_NAMED = 5  # skipped names in a sentence
SEPARATORS = ("\u2028", "\u2029")

# Corrections and oddities, with the sentence about each in the report.
SENTENCES = {
    "bom": "The byte order mark at the start of the file was skipped.",
    "utf-16": "The file is UTF-16 and was read as such.",
    "utf-32": "The file is UTF-32 and was read as such.",
    "crlf": "The lines end in CR LF, as on Windows; they are read like those that end in LF.",
    "cr": "The lines end in CR alone, as on old Macs; they are read like those that end in LF.",
    "separators": "U+2028 or U+2029 in {n:,} rows was kept as text: it ends no line.",
    "paragraphs": "Plain text: each paragraph between blank lines is one row.",
    "lines": "Plain text: each line is one row.",
    "empty names": "{n:,} columns without a name were named by their number.",
    "trimmed names": "Spaces around {n:,} column names were removed.",
    "cells of JSON": "{n:,} cells hold lists or objects as JSON and were read as such.",
    "guarded cells": "The apostrophe that guards against spreadsheet formulas was removed from {n:,} cells.",
    "cells of labels": "{n:,} labels written as text were read as true or false.",
    "not a number": "{n:,} numbers that are NaN or infinite were read as null.",
    "bytes": "{n:,} values are bytes and were read as UTF-8 text.",
    "as text": "{n:,} dates, times or decimals were read as text.",
    "null fields": "Null fields inside {n:,} rows were read as absent: columns cannot tell the two apart.",
    "blank lines": "Blank lines that were skipped: {n:,}.",
    "members passed over": "System files in the archive that were skipped: {n:,}.",
}


class Notes(Counter[str]):
    """Counts for each of SENTENCES, and names of other skipped things.

    left_out: files in an archive that are about the data. beside: members beside the list of rows in an object.
    """

    def __init__(self, *counts: Mapping[str, int]) -> None:
        super().__init__(*counts)
        self.left_out: list[str] = []
        self.beside: list[str] = []

    def sentences(self) -> list[str]:
        found = [sentence.format(n=self[name]) for name, sentence in SENTENCES.items() if self[name]]
        if self.left_out:
            found.append(f"Left out of the archive, as they are about the data: {_named(self.left_out)}.")
        if self.beside:
            found.append(f"Skipped beside the list of rows: {_named(self.beside)}.")
        return found


def _named(names: list[str]) -> str:
    more = f" and {len(names) - MAX_NAMED:,} more" if len(names) > MAX_NAMED else ""
    return ", ".join(name[-60:] for name in names[:MAX_NAMED]) + more


@dataclass(slots=True)
class Record:
    """A row. `line`: where it begins, or its number in files without lines. `value` is valid if nothing is `found`.

    raw: the text of the row in the file, if there is any. member: the file in an archive that holds it.
    """

    line: int
    raw: bytes | str
    value: Any = None
    found: Problem | None = None
    member: str = ""

    @property
    def text(self) -> str:
        if not self.raw and self.value is not None:
            return json.dumps(self.value, ensure_ascii=False)
        return self.raw if isinstance(self.raw, str) else self.raw.decode(errors="replace").strip()
