"""Encodings of text files: all are converted to UTF-8 with LF or CR LF line ends, and noted."""

import codecs
import io
from typing import BinaryIO

from trainer.formats.containers.record import Notes
from trainer.formats.problems import BadFile, Problem

BOM = codecs.BOM_UTF8
# UTF-32 first: its little-endian mark begins with that of UTF-16.
MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
CHUNK = 256 * 1024


class TranscodedStream(io.RawIOBase):
    """A stream in another encoding, or with CR line ends, read as UTF-8."""

    def __init__(self, source: BinaryIO, encoding: str, *, cr: bool = False) -> None:
        self._source = source
        self._encoding = encoding
        self._decoder = codecs.getincrementaldecoder(encoding)()
        self._cr = cr
        self._waiting = b""
        self._lines = 0

    def readable(self) -> bool:
        return True

    def readinto(self, into: "bytearray | memoryview") -> int:  # type: ignore[override] # a buffer of any kind
        while not self._waiting:
            raw = self._source.read(CHUNK)
            self._waiting = self._recode(raw)
            if not raw:
                break
        size = min(len(into), len(self._waiting))
        into[:size] = self._waiting[:size]
        self._waiting = self._waiting[size:]
        return size

    def _recode(self, raw: bytes) -> bytes:
        try:
            text = self._decoder.decode(raw, final=not raw)
        except UnicodeDecodeError as error:
            fix = "Save the file as UTF-8, and upload it again."
            raise BadFile(self._lines + 1, f"not {self._encoding.upper()}: {error.reason}", fix) from None
        text = text.replace("\r", "\n") if self._cr else text
        self._lines += text.count("\n")
        return text.encode()


def as_utf8(source: BinaryIO, head: bytes, notes: Notes) -> BinaryIO:
    """The stream from its start as UTF-8 without a byte order mark. `head`: its first bytes, not yet consumed."""
    if head.startswith(BOM):
        notes["bom"] += 1
        source.read(len(BOM))
        head = head[len(BOM) :]
    if encoding := wide_encoding(head):
        notes[encoding[:6]] += 1
        head = _decoded(head, encoding)
        source = io.BufferedReader(TranscodedStream(source, encoding), CHUNK)
    if b"\r\n" in head:
        notes["crlf"] += 1
    elif b"\r" in head and b"\n" not in head:
        notes["cr"] += 1
        source = io.BufferedReader(TranscodedStream(source, "utf-8", cr=True), CHUNK)
    return source


def wide_encoding(head: bytes) -> str:
    """The UTF-16 or UTF-32 encoding of a text; "" for any other.

    Without a byte order mark it is recognised by zeros: in UTF-16 every second byte of Latin letters is 0.
    """
    for mark, encoding in MARKS.items():
        if head.startswith(mark):
            return encoding
    some = head[: len(head) // 2 * 2][:4096]
    if len(some) >= 4 and b"\0" in some:
        odd, even = some[1::2].count(0), some[::2].count(0)
        if odd > 0.6 * len(some) / 2 and not even:
            return "utf-16-le"
        if even > 0.6 * len(some) / 2 and not odd:
            return "utf-16-be"
    return ""


def _decoded(head: bytes, encoding: str) -> bytes:
    return codecs.getincrementaldecoder(encoding)("replace").decode(head).encode()


def head_as_utf8(head: bytes) -> bytes:
    """The first bytes of a text file converted to UTF-8, for inspection."""
    head = head.removeprefix(BOM)
    encoding = wide_encoding(head)
    head = _decoded(head, encoding) if encoding else head
    return head if b"\n" in head else head.replace(b"\r", b"\n")


def not_utf8(raw: bytes, error: UnicodeDecodeError) -> Problem:
    """The problem with a line that is not UTF-8."""
    latin = all(byte >= 0xA0 for byte in raw if byte >= 0x80)
    windows = "Windows-1252 or Latin-1" if not latin else "Latin-1"
    fix = f"Save the file as UTF-8. It looks like {windows}, in which this byte is {_shown(raw, error)}."
    return Problem(f"byte {error.start + 1}", "not UTF-8", fix)


def _shown(raw: bytes, error: UnicodeDecodeError) -> str:
    return repr(raw[error.start : error.start + 1].decode("cp1252", "replace"))
