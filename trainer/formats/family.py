"""What a format module offers: a Family tells its rows from others and turns each into canonical content."""

from collections.abc import Callable, Iterable, Iterator, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from trainer.formats.canonical import Content, Kind, Message
from trainer.formats.extra import extra_of
from trainer.formats.problems import BadRow, Problem

Record = dict[str, Any]  # one row as it was parsed; never changed by who reads it

MEDIA = frozenset({"image", "images", "video", "videos", "audio", "audios"})


def nothing(row: Record) -> Iterable[str]:
    """What there is to say of a row when there is nothing to say."""
    return ()


def never(row: Record) -> None:
    """No row is a usual one."""


@dataclass(frozen=True)
class Gathered:
    """A row that came of several records, or what is wrong with one: `line` and `text` are the record's."""

    line: int
    text: str
    content: Content | None = None
    found: Problem | None = None


class Gathering(Protocol):
    """Collects the records of a family whose rows hang together over the whole file, in bounded memory."""

    def add(self, line: int, row: Record, text: str) -> None:
        """Takes a record in, with the line as it stands; BadRow when it is wrong by itself."""

    def results(self) -> Iterator[Gathered]:
        """After the last record: what came of them, in the order of the file."""

    def close(self) -> None:
        """Removes what lies on disk."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """A format. `read` raises BadRow and nothing else, whatever the row holds.

    saw: what its rows hold, ending the sentence "The rows hold …"; `layout` says it of one row, by its own columns.
    fields: of a row; others are passed over, counted. reads: those that count as `fields` in this row alone.
    ignored: names passed over inside a row. repaired: sentences, without a full stop, on what was put right in a row.
    gather: for a family whose rows hang together: takes a folder for what does not fit into memory; `read` is not used.
    refuses_media: whether a column with pictures or sound makes a row useless.
    usual: the conversation of a row of nothing but texts that are fine, and how many strings the row holds in all, keys
    among them; None for a row that needs a closer look. Says cheaply what matches, read, ignored and repaired say.
    """

    name: str
    kind: Kind
    saw: str
    fields: frozenset[str]
    matches: Callable[[Record], float]  # how much a row looks like this family; 1: all it needs is there
    read: Callable[[Record], Content]
    layout: Callable[[Record], str] | None = None
    reads: Callable[[Record], Iterable[str]] = nothing
    ignored: Callable[[Record], Iterable[str]] = nothing
    repaired: Callable[[Record], Iterable[str]] = nothing
    gather: Callable[[Path], Gathering] | None = None
    refuses_media: bool = True
    usual: Callable[[Record], tuple[list[Message], int] | None] = never

    def to_content(self, row: Record) -> Content:
        """What the row says. Raises BadRow."""
        if self.refuses_media and not MEDIA.isdisjoint(row):
            refuse_media(row)
        content = self.read(row)
        return replace(content, extra=extra) if (extra := extra_of(row, self.fields_of(row))) else content

    def fields_of(self, row: Record) -> Set[str]:
        """What is read of this row, and what has a meaning in others."""
        if self.reads is nothing or row.keys() <= self.fields:
            return self.fields
        return self.fields | {*self.reads(row)}

    def passed_over(self, row: Record) -> Iterable[str]:
        """The names of what a good row holds and nothing reads."""
        beside = () if row.keys() <= self.fields else row.keys() - self.fields_of(row)
        return beside if self.ignored is nothing else (*beside, *self.ignored(row))


def refuse_media(row: Record) -> None:
    """A row that speaks of a picture means nothing without it."""
    for name in MEDIA & row.keys():
        if row[name]:
            what = "images" if name.startswith("image") else "video" if name.startswith("video") else "sound"
            raise BadRow(
                name, f"the row holds {what}", "Only text can be trained on: remove such rows, or this column."
            )
