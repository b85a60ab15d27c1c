"""Compressed files and archives, unpacked while they are read, with a limit against decompression bombs."""

import gzip
import io
import re
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import pyarrow as pa

from trainer.formats.containers.record import Notes
from trainer.formats.problems import BadFile

GZIP, ZSTD, ZIP = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"PK\x03\x04"
EMPTY_ZIP = b"PK\x05\x06"
MAX_MEMBERS = 1000
ALWAYS_ALLOWED = 64 * 1024 * 1024  # bytes that any file may unpack to
MAX_RATIO = 150  # otherwise, times its compressed size; instruction data compresses 3 to 30 times
MAX_BYTES = 64 * 1024**3
CHUNK = 1024 * 1024
FIX_UNPACK = "Unpack it and upload the files in it."
FIX_DAMAGED = "Compress the file again, or upload it as it was before."
SYSTEM_FILES = ("__MACOSX/", ".DS_Store", "Thumbs.db", "desktop.ini")
# Files about the data, beside the data.
METADATA_FILES = re.compile(
    r"(?:\.|(?:readme|licen[cs]e|copying|notice|authors|changelog|changes|citation|dataset[ _-]?card)"
    r"(?:[._-]\w+)*\Z|dataset_infos?\.json\Z)",
    re.IGNORECASE,
)
OFFICE = ("[Content_Types].xml", "mimetype")


@dataclass
class Member:
    """A byte stream to read: the whole upload, or a file in an archive. `name`: its name there."""

    name: str
    stream: BinaryIO
    packing: str = ""  # its compression: "+gz", "+zst", "+zip", "+gz+zip"


class Budget:
    """How many bytes a file may unpack to, shared by all members of an archive against many small bombs."""

    def __init__(self, packed_size: int) -> None:
        self._left = min(max(ALWAYS_ALLOWED, MAX_RATIO * packed_size), MAX_BYTES)

    def spend(self, size: int, line: int) -> None:
        """Raises BadFile once the budget is exceeded."""
        self._left -= size
        if self._left < 0:
            raise BadFile(line, "unpacks to far more than its size", "Upload the file as it was before packing.")


class Unpacked(io.RawIOBase):
    """A decompressed stream within a budget; errors name the line reached."""

    def __init__(self, source: Any, budget: Budget) -> None:
        self._source = source
        self._budget = budget
        self._lines = 0

    def readable(self) -> bool:
        return True

    def readinto(self, into: "bytearray | memoryview") -> int:  # type: ignore[override] # a buffer of any kind
        try:
            raw = self._source.read(len(into))
        except (EOFError, zlib.error, gzip.BadGzipFile, zipfile.BadZipFile, pa.ArrowException) as error:
            raise self._broken(error) from error
        except OSError as error:
            if error.errno is not None:  # from the disk, not from Arrow's decompressor
                raise
            raise self._broken(error) from error
        except BadFile as outer:  # from the outer compression; report our line instead
            raise BadFile(self._lines + 1, outer.found.problem, outer.found.fix) from outer
        self._budget.spend(len(raw), self._lines + 1)
        self._lines += raw.count(b"\n")
        into[: len(raw)] = raw
        return len(raw)

    def _broken(self, error: Exception) -> BadFile:
        cut_off = isinstance(error, EOFError) or "runcated" in str(error)
        what = "the compressed file is cut off" if cut_off else "the compressed file is damaged"
        return BadFile(self._lines + 1, what, FIX_DAMAGED)


def members(path: Path, notes: Notes) -> Iterator[Member]:
    """The files to read, one by one. Raises BadFile for an archive that cannot be trusted."""
    with path.open("rb", buffering=CHUNK) as file:
        magic = file.read(4)
        file.seek(0)
        budget = Budget(path.stat().st_size)
        if magic in (ZIP, EMPTY_ZIP):
            yield from _members_of_zip(file, budget, notes)
        else:
            yield Member("", *_unwrapped(file, magic, budget))


def _unwrapped(file: BinaryIO, magic: bytes, budget: Budget) -> tuple[BinaryIO, str]:
    """The decompressed stream and its compression, or the file itself if it is not compressed."""
    if magic.startswith(GZIP):
        return _unpacked(gzip.GzipFile(fileobj=file), budget), "+gz"
    if magic == ZSTD:
        return _unpacked(pa.CompressedInputStream(pa.PythonFile(file, "r"), "zstd"), budget), "+zst"
    return file, ""


def _unpacked(source: Any, budget: Budget) -> io.BufferedReader:
    return io.BufferedReader(Unpacked(source, budget), CHUNK)


def _members_of_zip(file: BinaryIO, budget: Budget, notes: Notes) -> Iterator[Member]:
    try:
        with zipfile.ZipFile(file) as archive:
            for info in _wanted(archive, notes):
                with archive.open(info) as source:
                    yield _member_of_zip(info.filename, _unpacked(source, budget), budget)
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise BadFile(1, "the ZIP archive is damaged", FIX_DAMAGED) from error


def _member_of_zip(name: str, file: io.BufferedReader, budget: Budget) -> Member:
    try:
        stream, wrapped = _unwrapped(file, file.peek(4)[:4], budget)
    except BadFile as bad:
        raise BadFile(bad.line, bad.found.problem, bad.found.fix, field=name) from bad
    return Member(name, stream, f"{wrapped}+zip")


def _wanted(archive: zipfile.ZipFile, notes: Notes) -> list[zipfile.ZipInfo]:
    """The members with rows. Their names are only shown: nothing is ever written under them."""
    every = archive.infolist()
    if len(every) > MAX_MEMBERS:
        raise BadFile(1, f"the ZIP archive holds more than {MAX_MEMBERS:,} files", "Put the rows into fewer files.")
    if any(info.filename in OFFICE for info in every):
        raise BadFile(1, "the file is a spreadsheet or another office document", "Save it as CSV and upload that.")
    files = [info for info in every if not info.is_dir()]
    wanted = [info for info in files if not _of_system(info.filename)]
    notes["members passed over"] += len(files) - len(wanted)
    if rows := [info for info in wanted if not METADATA_FILES.match(PurePosixPath(info.filename).name)]:
        notes.left_out += [info.filename for info in wanted if info not in rows]
        wanted = rows
    for info in wanted:
        if stat.S_ISLNK(info.external_attr >> 16):
            raise BadFile(1, "the ZIP archive holds a link", FIX_UNPACK, field=info.filename)
        if info.flag_bits & 1:
            raise BadFile(1, "the ZIP archive needs a password", "Pack it without one.", field=info.filename)
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise BadFile(1, "the ZIP archive is compressed in a rare way", FIX_UNPACK, field=info.filename)
    if not wanted:
        raise BadFile(1, "the ZIP archive is empty", "Put at least one file with rows into it.")
    return wanted


def _of_system(name: str) -> bool:
    return name.startswith(SYSTEM_FILES[0]) or name.rsplit("/", 1)[-1] in SYSTEM_FILES


def seekable(member: Member, scratch: Path) -> BinaryIO:
    """The member as a seekable file, which Parquet and Arrow files need."""
    if not member.packing:
        return member.stream
    spooled: BinaryIO = tempfile.TemporaryFile(dir=scratch)  # noqa: SIM115 # its reader closes it
    while some := member.stream.read(CHUNK):
        spooled.write(some)
    spooled.seek(0)
    return spooled
