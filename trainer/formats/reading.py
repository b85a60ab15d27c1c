"""Reads JSONL, or one JSON list, row by row with physical line numbers, in little memory whatever the size."""

import codecs
from collections.abc import Iterator
from dataclasses import dataclass, field
from json import JSONDecodeError
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from trainer.formats.problems import BadFile, Problem
from trainer.formats.strict import StrictDecoder

MAX_RECORD = 4 * 1024 * 1024  # of one row; longer than any context window by far
CHUNK = 1024 * 1024
HEAD = 64 * 1024
SPACE = " \t\r\n"
BOM = codecs.BOM_UTF8
FIX_SPREAD = "Write each row on one line (JSONL), or put all rows in one list: [ … ]."
FIX_SYNTAX = 'Correct the JSON here. Quotes and line ends inside a text are written \\" and \\n.'
# What a file that is no text begins with, and what it is.
MAGIC = {
    b"PK\x03\x04": "a ZIP archive or a spreadsheet",
    b"\x1f\x8b": "compressed with gzip",
    b"\x28\xb5\x2f\xfd": "compressed with zstd",
    b"PAR1": "a Parquet file",
    b"%PDF": "a PDF",
}


@dataclass(frozen=True)
class Record:
    """One row as it stands in the file: `line` is where it begins; `value` counts only when there is no `found`."""

    line: int
    text: str
    value: Any = None
    found: Problem | None = None


@dataclass
class Reading:
    """A file being read: what holds its rows, the rows, and what had to be repaired once they are read."""

    container: str
    records: Iterator[Record]
    repairs: list[str] = field(default_factory=list)


def open_records(path: Path, name: str = "") -> Reading:
    """Begin to read a file; `name` is what it was called where it came from. Its records raise BadFile."""
    with path.open("rb") as file:
        head = file.read(HEAD)
    container = "json" if head.removeprefix(BOM).lstrip().startswith(b"[") else "jsonl"
    repairs = ["The byte order mark at the start of the file was passed over."] if head.startswith(BOM) else []
    return Reading(container, read_records(path), repairs)


def read_records(path: Path) -> Iterator[Record]:
    """Every record of the file in order. Raises BadFile where reading must end."""
    with path.open("rb") as file:
        head = file.read(HEAD)
        refuse_other_files(head)
        file.seek(len(BOM) if head.startswith(BOM) else 0)
        if head.removeprefix(BOM).lstrip().startswith(b"["):
            yield from ListReader(file).records()
        else:
            yield from _read_lines(file)


def refuse_other_files(head: bytes) -> None:
    """Raise BadFile when the first bytes are not those of JSON in UTF-8."""
    for magic, what in MAGIC.items():
        if head.startswith(magic):
            raise BadFile(1, f"the file is {what}", "Unpack or convert it to JSON or JSONL, then upload that.")
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in head[:2]:
        raise BadFile(1, "the file is UTF-16, not UTF-8", "Save it as UTF-8 in your editor and upload it again.")
    lines = [line.strip() for line in head.removeprefix(BOM).split(b"\n")]
    lines = [line for line in lines if line]
    if not lines:
        raise BadFile(1, "the file has no rows", "Upload a file with at least one row.")
    if lines[0] == b"{":
        raise BadFile(1, "one row is spread over several lines", FIX_SPREAD, text="{")
    like_json = [line.startswith((b"{", b"[")) for line in lines]
    if not like_json[0] and 2 * sum(like_json) < len(lines):
        shown = lines[0].decode(errors="replace")
        raise BadFile(1, "the file is not JSON", "Upload JSON or JSONL; see the two examples.", text=shown)


def _read_lines(file: BinaryIO) -> Iterator[Record]:
    decoder = StrictDecoder()
    number = 0
    while raw := file.readline(MAX_RECORD + 1):
        number += 1
        if len(raw) > MAX_RECORD:
            while not raw.endswith(b"\n") and (rest := file.readline(CHUNK)):
                raw = raw[:2000] + rest[-1:]
            found = Problem("", "row longer than 4 MB", "Split this row into several.")
            yield Record(number, raw[:2000].decode(errors="replace"), found=found)
        elif not raw.isspace():
            yield _record_of_line(raw, number, decoder)


def _record_of_line(raw: bytes, number: int, decoder: StrictDecoder) -> Record:
    try:
        text = raw.decode().strip(SPACE)
    except UnicodeDecodeError as error:
        shown = raw[: 4 * 500].decode(errors="replace")
        return Record(number, shown, found=Problem(f"byte {error.start + 1}", "not UTF-8", "Save the file as UTF-8."))
    try:
        value, end = decoder.decode(text)
    except JSONDecodeError as error:
        return Record(number, text, found=Problem(f"column {error.pos + 1}", f"invalid JSON: {error.msg}", FIX_SYNTAX))
    except RecursionError:
        return Record(number, text, found=Problem("", "nested too deeply", "Flatten this row."))
    if end < len(text):
        found = Problem(
            f"column {end + 1}", "invalid JSON: more after the end of the row", "Write one row on each line."
        )
        return Record(number, text, found=found)
    return Record(number, text, value, decoder.found)


class ListReader:
    """Takes the records out of one JSON list, pretty-printed or not, through a window that moves over the file."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._utf8 = codecs.getincrementaldecoder("utf-8")()
        self._decoder = StrictDecoder()
        self._window = ""
        self._at = 0  # where reading stands in the window
        self._line = 1  # the physical line and column of that place
        self._column = 1
        self._ended = False

    def records(self) -> Iterator[Record]:
        """Every element in order. Raises BadFile where the list itself is broken: no element after it can be found."""
        self._peek()
        self._move(self._at + 1)  # the opening bracket
        if self._peek() == "]":
            raise BadFile(self._line, "the file has no rows", "Upload a file with at least one row.")
        while True:
            if self._peek() == "]":
                self._broken(self._at, "a comma after the last row")
            yield self._element()
            mark = self._peek()
            if mark == "]":
                break
            if mark != ",":
                self._broken(
                    self._at, "a comma or ] is missing after a row" if mark else "the list is not closed with ]"
                )
            self._move(self._at + 1)
        self._move(self._at + 1)
        if self._peek():
            raise BadFile(self._line, "more after the end of the list", "Put everything into one list.")

    def _element(self) -> Record:
        line = self._line
        while True:
            try:
                value, end = self._decoder.decode(self._window, self._at)
                # A number at the window's edge may go on behind it.
                if end < len(self._window) or not self._read_on():
                    break
            except JSONDecodeError as error:
                if not self._read_on():
                    self._refuse(error)
            except RecursionError:
                raise BadFile(line, "nested too deeply", "Flatten this row.", text=self._shown(self._at)) from None
        record = Record(line, self._window[self._at : end], value, self._decoder.found)
        self._move(end)
        if len(record.text) > MAX_RECORD:
            return Record(line, record.text[:2000], found=Problem("", "row longer than 4 MB", "Split this row."))
        return record

    def _peek(self) -> str:
        """The next character that is no space, "" at the end of the file; reading stands on it then."""
        while True:
            rest = len(self._window)
            place = self._at
            while place < rest and self._window[place] in SPACE:
                place += 1
            self._move(place)
            if place < rest:
                return self._window[place]
            if not self._read_on():
                return ""

    def _move(self, place: int) -> None:
        self._line, self._column = self._position(place)
        self._at = place

    def _position(self, place: int) -> tuple[int, int]:
        """Line and column, both from 1, of a place in the window at or after where reading stands."""
        line_ends = self._window.count("\n", self._at, place)
        if not line_ends:
            return self._line, self._column + place - self._at
        return self._line + line_ends, place - self._window.rfind("\n", self._at, place)

    def _read_on(self) -> bool:
        """Move the window on; False at the end of the file, or when one row fills more than the limit."""
        if self._ended or len(self._window) - self._at > MAX_RECORD:
            return False
        raw = self._file.read(CHUNK)
        self._ended = not raw
        self._window, self._at = self._window[self._at :], 0
        try:
            self._window += self._utf8.decode(raw, final=self._ended)
        except UnicodeDecodeError as error:
            before = self._window + raw[: error.start].decode(errors="replace")
            line = self._line + before.count("\n")
            raise BadFile(line, "not UTF-8", "Save the file as UTF-8.", text=before[-200:].lstrip()) from None
        return True

    def _refuse(self, error: JSONDecodeError) -> NoReturn:
        cut_off = error.msg.startswith("Unterminated") or error.pos > len(self._window) - 20
        if cut_off and not self._ended:
            raise BadFile(
                self._line, "row longer than 4 MB", "Split this row into several.", text=self._shown(self._at)
            )
        self._broken(error.pos, f"invalid JSON: {error.msg}")

    def _broken(self, place: int, problem: str) -> NoReturn:
        line, column = self._position(place)
        raise BadFile(line, problem, FIX_SYNTAX, text=self._shown(place), field=f"column {column}")

    def _shown(self, place: int) -> str:
        """The line of a place, without what lies far before it."""
        start = max(self._window.rfind("\n", 0, place) + 1, place - 200, 0)
        return self._window[start : start + 500].split("\n", 1)[0].rstrip("\r")
