"""The interface of a format: a Family recognises its rows and converts each to canonical content."""

from collections.abc import Callable, Iterable, Iterator, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from trainer.formats.canonical import Content, Kind, Message
from trainer.formats.extra import extra_of
from trainer.formats.problems import BadRow, Problem

Record = dict[str, Any]  # one parsed row; readers never change it

MEDIA = frozenset({"image", "images", "video", "videos", "audio", "audios"})


def nothing(row: Record) -> Iterable[str]:
    """Default for hooks that have nothing to report."""
    return ()


def no_fast_path(row: Record) -> None:
    """Default for families without a fast path."""


@dataclass(frozen=True)
class Gathered:
    """A row made of several records, or the problem with one of them; `line` and `text` are the record's."""

    line: int
    text: str
    content: Content | None = None
    found: Problem | None = None


class Gathering(Protocol):
    """Collects the records of a family whose rows are linked across the whole file, in bounded memory."""

    def add(self, line: int, row: Record, text: str) -> None:
        """Add a record. Raises BadRow if it is wrong by itself."""

    def results(self) -> Iterator[Gathered]:
        """After the last record: the rows and problems, in file order."""

    def close(self) -> None:
        """Delete the files on disk."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """A format. `read` raises only BadRow, whatever the row holds.

    saw: what its rows hold, to complete "The rows hold …"; `layout` says the same of one row, by its own columns.
    fields: columns with a meaning; others are ignored and counted. reads: further columns that are read in this row.
    ignored: keys inside a row that are ignored. repaired: sentences, without a full stop, on what was corrected.
    gather: for linked rows, used instead of `read`; takes a folder for data that does not fit into memory.
    refuses_media: whether images, video or sound make a row unusable.
    fast_path: for a row of plain, valid texts its conversation and its number of strings including keys; None for any
    other row. It replaces matches, read, ignored and repaired, and must agree with them.
    """

    name: str
    kind: Kind
    saw: str
    fields: frozenset[str]
    matches: Callable[[Record], float]  # how much a row looks like this family; 1: it has all required fields
    read: Callable[[Record], Content]
    layout: Callable[[Record], str] | None = None
    reads: Callable[[Record], Iterable[str]] = nothing
    ignored: Callable[[Record], Iterable[str]] = nothing
    repaired: Callable[[Record], Iterable[str]] = nothing
    gather: Callable[[Path], Gathering] | None = None
    refuses_media: bool = True
    fast_path: Callable[[Record], tuple[list[Message], int] | None] = no_fast_path

    def to_content(self, row: Record) -> Content:
        """The row's content. Raises BadRow."""
        if self.refuses_media and not MEDIA.isdisjoint(row):
            refuse_media(row)
        content = self.read(row)
        return replace(content, extra=extra) if (extra := extra_of(row, self.fields_of(row))) else content

    def fields_of(self, row: Record) -> Set[str]:
        """The columns that are read in this row or have a meaning in others."""
        if self.reads is nothing or row.keys() <= self.fields:
            return self.fields
        return self.fields | {*self.reads(row)}

    def ignored_fields(self, row: Record) -> Iterable[str]:
        """The names in a good row that nothing reads."""
        beside = () if row.keys() <= self.fields else row.keys() - self.fields_of(row)
        return beside if self.ignored is nothing else (*beside, *self.ignored(row))


def refuse_media(row: Record) -> None:
    """Raises BadRow for images, video or sound: the text is meaningless without them."""
    for name in MEDIA & row.keys():
        if row[name]:
            what = "images" if name.startswith("image") else "video" if name.startswith("video") else "sound"
            raise BadRow(
                name, f"the row holds {what}", "Only text can be trained on: remove such rows, or this column."
            )
