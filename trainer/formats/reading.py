"""Reads a file in any container, detected from its first bytes and only then from its name."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from trainer.formats.containers.columnar import ARROW_FILE, ARROW_STREAM, PARQUET, read_arrow, read_parquet
from trainer.formats.containers.encodings import as_utf8, head_as_utf8
from trainer.formats.containers.json_text import LineReader, ListReader
from trainer.formats.containers.packed import EMPTY_ZIP, GZIP, ZIP, ZSTD, Member, members, seekable
from trainer.formats.containers.paragraphs import has_paragraphs, read_text
from trainer.formats.containers.record import Notes, Record
from trainer.formats.containers.separated import find_delimiter, read_separated
from trainer.formats.containers.wrapped import WrappedReader, list_of_rows
from trainer.formats.problems import BadFile

__all__ = ["Reading", "Record", "open_records"]

HEAD = 64 * 1024
FIX_SPREAD = "Write each row on one line (JSONL), or put all rows in one list: [ … ]."
FIX_KINDS = "Upload JSON, JSONL, CSV, Parquet, Arrow or plain text, as it is or packed with gzip, zstd or ZIP."
# Magic bytes of files that are no dataset.
MAGIC = {
    ZIP: "a ZIP archive inside another",
    EMPTY_ZIP: "a ZIP archive inside another",
    GZIP: "compressed twice",
    ZSTD: "compressed twice",
    b"BZh": "compressed with bzip2",
    b"\xfd7zXZ": "compressed with xz",
    b"7z\xbc\xaf": "a 7z archive",
    b"Rar!": "a RAR archive",
    b"%PDF": "a PDF",
    b"\xd0\xcf\x11\xe0": "an old office document",
    b"SQLite format": "a database",
    b"\x89PNG": "a picture",
    b"\xff\xd8\xff": "a picture",
    b"GIF8": "a picture",
    b"\x7fELF": "a program",
    b"\x80\x04": "a Python pickle",
    b"\x80\x02": "a Python pickle",
    b"\x93NUMPY": "a NumPy array",
    b"ORC": "an ORC file",
    b"Obj\x01": "an Avro file",
}
TAR_AT = 257  # offset of the magic bytes of a tar archive
OF_CELLS = (".csv", ".tsv", ".tab")
OF_TEXT = ("", ".txt", ".text", ".md")
PACKED = (".gz", ".zst", ".zstd", ".gzip")
NO_ROWS = ("the file has no rows", "Upload a file with at least one row.")
LIST_OF_ROWS = re.compile(rb"\[\s*([\[{\]]|$)")


@dataclass
class Reading:
    """A file being read: its rows, and what was noted on the way, complete once all rows are read.

    kinds: the formats of the content ("jsonl", "csv", …), in archive order. packing: the compression around it.
    """

    path: Path
    records: Iterator[Record] = field(default_factory=lambda: iter(()))
    kinds: list[str] = field(default_factory=list)
    packing: str = ""
    notes: Notes = field(default_factory=Notes)
    inside: str = ""  # the name of the list of rows inside an object
    lines_from: int = -1  # offset from which the file is uncompressed JSONL in UTF-8; -1 if it is anything else

    @property
    def container(self) -> str:
        return "/".join(self.kinds) + self.packing

    @property
    def repairs(self) -> list[str]:
        return self.notes.sentences()


def open_records(path: Path, name: str = "", *, scratch: Path | None = None) -> Reading:
    """Start to read a file. `name`: its original name. `scratch`: a folder to unpack Parquet and Arrow files in.

    The records raise BadFile where reading has to stop.
    """
    reading = Reading(path)
    reading.records = _records(path, name or path.name, scratch or path.parent, reading)
    return reading


def _records(path: Path, name: str, scratch: Path, reading: Reading) -> Iterator[Record]:
    rows = 0
    for member in members(path, reading.notes):
        reading.packing = member.packing
        try:
            for record in _of_member(member, member.name or name, path.stat().st_size, scratch, reading):
                record.member = member.name
                rows += 1
                yield record
        except BadFile as bad:
            raise bad if not member.name else _in_member(bad, member.name) from bad
    if not rows:
        raise BadFile(1, *NO_ROWS)


def _in_member(bad: BadFile, name: str) -> BadFile:
    found = bad.found.inside(name)
    return BadFile(bad.line, found.problem, found.fix, text=bad.text, field=found.field)


def _of_member(member: Member, name: str, size: int, scratch: Path, reading: Reading) -> Iterator[Record]:
    stream = member.stream
    head = stream.peek(HEAD)[:HEAD] if hasattr(stream, "peek") else b""
    columns = _columns(head)
    kind = columns or _kind_of_text(head, name)
    if kind not in reading.kinds:
        reading.kinds.append(kind)
    if columns == "parquet":
        return read_parquet(seekable(member, scratch), reading.notes, size=size)
    if columns:
        stream_form = head.startswith(ARROW_STREAM)
        file = stream if stream_form else seekable(member, scratch)
        return read_arrow(file, reading.notes, size=size, stream=stream_form)
    file = as_utf8(stream, head, reading.notes)
    if kind == "jsonl" and file is stream and not member.packing:
        reading.lines_from = file.tell()
    if kind == "json":
        reading.inside = list_of_rows(head_as_utf8(head).decode(errors="replace"))
        if reading.inside:
            return WrappedReader(file, reading.notes, reading.inside).records()
    return _of_text(file, head_as_utf8(head), kind, name, reading.notes)


def _columns(head: bytes) -> str:
    if head.startswith(PARQUET):
        return "parquet"
    return "arrow" if head.startswith((ARROW_FILE, ARROW_STREAM)) else ""


def _of_text(file: BinaryIO, head: bytes, kind: str, name: str, notes: Notes) -> Iterator[Record]:
    if kind == "json":
        return ListReader(file, notes).records()
    if kind == "jsonl":
        return LineReader(file, notes).records()
    text = head.decode(errors="replace")
    if kind == "csv":
        return read_separated(file, find_delimiter(text, named=_suffix(name) in OF_CELLS), notes)
    return read_text(file, notes, paragraphs=has_paragraphs(text))


def _suffix(name: str) -> str:
    path = PurePosixPath(name.lower())
    return PurePosixPath(path.stem).suffix if path.suffix in PACKED else path.suffix


def _kind_of_text(head: bytes, name: str) -> str:
    """ "json", "jsonl", "csv" or "text". Raises BadFile for a file without rows or a binary file."""
    _refuse_other_files(head)
    head, suffix = head_as_utf8(head), _suffix(name)
    lines = [line for line in (line.strip() for line in head.split(b"\n")) if line]
    if not lines:
        raise BadFile(1, *NO_ROWS)
    if lines[0].startswith(b"[") and (suffix not in (*OF_CELLS, *OF_TEXT[1:]) or LIST_OF_ROWS.match(head.lstrip())):
        return "json"
    if lines[0].startswith(b"{") and list_of_rows(head.decode(errors="replace")):
        return "json"
    if lines[0] == b"{":
        raise BadFile(1, "one row is spread over several lines", FIX_SPREAD, text="{")
    like_json = [line.startswith((b"{", b"[")) for line in lines]
    if like_json[0] or 2 * sum(like_json) >= len(lines):
        return "jsonl"
    if suffix in OF_CELLS or find_delimiter(head.decode(errors="replace"), named=False):
        return "csv"
    if suffix in OF_TEXT:
        return "text"
    shown = lines[0].decode(errors="replace")
    if suffix in (".json", ".jsonl", ".ndjson"):
        raise BadFile(1, "the file is not JSON", "Correct it, or name it for what it is.", text=shown)
    raise BadFile(1, f"{suffix} files are not read", FIX_KINDS, text=shown)


def _refuse_other_files(head: bytes) -> None:
    for magic, what in MAGIC.items():
        if head.startswith(magic):
            raise BadFile(1, f"the file is {what}", FIX_KINDS)
    if head[TAR_AT : TAR_AT + 5] == b"ustar":
        raise BadFile(1, "the file is a tar archive", FIX_KINDS)
