"""JSON lines or one JSON list: read row by row with physical line numbers, in constant memory."""

import codecs
from collections.abc import Iterator
from json import JSONDecodeError
from typing import BinaryIO, NoReturn

from trainer.formats.containers.encodings import not_utf8
from trainer.formats.containers.record import MAX_RECORD, SEPARATORS, TOO_LONG, Notes, Record
from trainer.formats.problems import BadFile, Problem
from trainer.formats.quick import NEEDS_STRICT, decode
from trainer.formats.strict import StrictDecoder, too_deep_at

CHUNK = 1024 * 1024
SPACE = " \t\r\n"
RAW_SEPARATORS = tuple(mark.encode() for mark in SEPARATORS)
FIX_SYNTAX = 'Correct the JSON here. Quotes and line ends inside a text are written \\" and \\n.'


class LineReader:
    """Reads records from the lines of a file, from its current position; `lines` counts the lines read."""

    def __init__(self, file: BinaryIO, notes: Notes) -> None:
        self._file = file
        self._notes = notes
        self._strict = StrictDecoder()
        self.lines = 0

    def records(self, size: int | None = None) -> Iterator[Record]:
        """A record for every non-blank line that begins within the next `size` bytes, or in the whole rest."""
        read, file = 0, self._file
        while (size is None or read < size) and (raw := file.readline(MAX_RECORD + 1)):
            self.lines += 1
            read += len(raw)
            if len(raw) > MAX_RECORD:
                yield Record(self.lines, raw[:2000], found=TOO_LONG)
                while not raw.endswith(b"\n") and (raw := file.readline(CHUNK)):
                    read += len(raw)
            elif record := self.record(raw):
                yield record

    def record(self, raw: bytes) -> Record | None:
        """The record in the last line read; None if it is blank."""
        if not raw or raw.isspace():
            self._notes["blank lines"] += 1
            return None
        return record_of_line(raw, self.lines, self._strict, self._notes)


def record_of_line(raw: bytes, number: int, decoder: StrictDecoder, notes: Notes) -> Record:
    """The record in one line, strictly decoded."""
    value = decode(raw)
    if value is not NEEDS_STRICT:
        if not raw.isascii() and any(mark in raw for mark in RAW_SEPARATORS):
            notes["separators"] += 1
        return Record(number, raw, value)
    try:
        text = raw.decode().strip(SPACE)
    except UnicodeDecodeError as error:
        return Record(number, raw[: 4 * 500], found=not_utf8(raw, error))
    try:
        value, end = decoder.decode(text)
    except JSONDecodeError as error:
        return Record(number, text, found=Problem(f"column {error.pos + 1}", f"invalid JSON: {error.msg}", FIX_SYNTAX))
    except RecursionError:
        found = Problem(f"column {too_deep_at(text) + 1}", "nested too deeply", "Flatten this row.")
        return Record(number, text, found=found)
    if end < len(text):
        found = Problem(
            f"column {end + 1}", "invalid JSON: more after the end of the row", "Write one row on each line."
        )
        return Record(number, text, found=found)
    notes["separators"] += any(mark in text for mark in SEPARATORS)
    return Record(number, text, value, decoder.found)


class ListReader:
    """Reads records from one JSON list, pretty-printed or not, through a sliding window over the file."""

    def __init__(self, file: BinaryIO, notes: Notes) -> None:
        self._file = file
        self._notes = notes
        self._utf8 = codecs.getincrementaldecoder("utf-8")()
        self._decoder = StrictDecoder()
        self._window = ""
        self._at = 0  # current position in the window
        self._line = 1  # physical line and column of that position
        self._column = 1
        self._ended = False

    def records(self) -> Iterator[Record]:
        """Every element in order. Raises BadFile if the list itself is broken, as later elements cannot be found."""
        self._peek()
        yield from self._elements()
        if self._peek():
            raise BadFile(self._line, "more after the end of the list", "Put everything into one list.")

    def _elements(self) -> Iterator[Record]:
        """The elements of the list at the current position, which then is after the list."""
        self._move(self._at + 1)  # the opening bracket
        if self._peek() == "]":
            raise BadFile(self._line, "the file has no rows", "Upload a file with at least one row.")
        while True:
            if self._peek() == "]":
                self._fail(self._at, "a comma after the last row")
            yield self._element()
            mark = self._peek()
            if mark == "]":
                break
            if mark != ",":
                self._fail(self._at, "a comma or ] is missing after a row" if mark else "the list is not closed with ]")
            self._move(self._at + 1)
        self._move(self._at + 1)

    def _element(self) -> Record:
        line = self._line
        while True:
            try:
                value, end = self._decoder.decode(self._window, self._at)
                # A number at the end of the window may continue.
                if end < len(self._window) or not self._extend():
                    break
            except JSONDecodeError as error:
                if not self._extend():
                    self._refuse(error)
            except RecursionError:
                self._fail(too_deep_at(self._window, self._at), "nested too deeply", "Flatten this row.")
        text = self._window[self._at : end]
        self._move(end)
        if len(text) > MAX_RECORD:
            return Record(line, text[:2000], found=TOO_LONG)
        self._notes["separators"] += any(mark in text for mark in SEPARATORS)
        return Record(line, text, value, self._decoder.found)

    def _peek(self) -> str:
        """Skip whitespace and return the next character, "" at the end of the file."""
        while True:
            rest = len(self._window)
            place = self._at
            while place < rest and self._window[place] in SPACE:
                place += 1
            self._move(place)
            if place < rest:
                return self._window[place]
            if not self._extend():
                return ""

    def _move(self, place: int) -> None:
        self._line, self._column = self._position(place)
        self._at = place

    def _position(self, place: int) -> tuple[int, int]:
        """Line and column, both from 1, of an index in the window at or after the current position."""
        line_ends = self._window.count("\n", self._at, place)
        if not line_ends:
            return self._line, self._column + place - self._at
        return self._line + line_ends, place - self._window.rfind("\n", self._at, place)

    def _extend(self) -> bool:
        """Read more into the window. False at the end of the file, or if one row exceeds the limit."""
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
        self._fail(error.pos, f"invalid JSON: {error.msg}")

    def _fail(self, place: int, problem: str, fix: str = FIX_SYNTAX) -> NoReturn:
        line, column = self._position(place)
        raise BadFile(line, problem, fix, text=self._shown(place), field=f"column {column}")

    def _shown(self, place: int) -> str:
        """The line around an index, without what is far before it."""
        start = max(self._window.rfind("\n", 0, place) + 1, place - 200, 0)
        return self._window[start : start + 500].split("\n", 1)[0].rstrip("\r")
