"""Canonical rows, the few shapes everything after the upload reads: Parquet of chat messages, addressed by content."""

import hashlib
import json
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from trainer.formats.extra import Extra

Message = dict[str, Any]
Tools = list[dict[str, Any]]

ROWS_PER_GROUP = 500  # a page of rows found by searching reads a group for each; fewer make a long description
BYTES_PER_GROUP = 32 * 1024 * 1024  # long rows make smaller groups, so that memory stays flat
COPY = "-"  # in an id, before the running number of a row that was there before

Kind = Literal["chat", "text", "preference", "labelled"]

# What a row of each kind holds, beside its tools. Messages are kept as JSON.
SHAPES: dict[Kind, tuple[str, ...]] = {
    "chat": ("messages",),
    "text": ("text",),
    "preference": ("prompt", "chosen", "rejected"),
    "labelled": ("prompt", "completion", "label"),
}
OF_MESSAGES = ("messages", "prompt", "chosen", "rejected", "completion")
IN_JSON = (*OF_MESSAGES, "tools", "extra")
TOKENS_FOLDER = "tokens"  # beside the rows: where trainings keep them tokenised, see trainer.token_cache
SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("line", pa.int64(), nullable=False),
        *(pa.field(name, pa.large_string()) for name in (*OF_MESSAGES, "tools", "text")),
        pa.field("label", pa.bool_()),
        pa.field("split", pa.string()),
        pa.field("edited", pa.string()),  # see Row.content_id
        pa.field("extra", pa.large_string()),  # see Content.extra; JSON
    ]
)


@dataclass(frozen=True, kw_only=True)
class Content:
    """What a row says, in one of the SHAPES; what belongs to the others is empty.

    messages: a conversation. text: plain text, which no template surrounds. prompt: messages that ask, with the chosen
    and the rejected answer, or with a completion and the label that tells whether it is a good one. extra: what other
    columns said beside it, which is no part of its identity.
    """

    messages: list[Message] = field(default_factory=list)
    prompt: list[Message] = field(default_factory=list)
    chosen: list[Message] = field(default_factory=list)
    rejected: list[Message] = field(default_factory=list)
    completion: list[Message] = field(default_factory=list)
    label: bool | None = None
    text: str | None = None
    tools: Tools | None = None
    extra: Extra = field(default_factory=dict)

    @property
    def kind(self) -> Kind:
        if self.text is not None:
            return "text"
        if self.label is not None:
            return "labelled"
        return "preference" if self.prompt else "chat"

    def conversations(self) -> list[list[Message]]:
        """What a model reads of it: one conversation, two that differ in the answer, or none where all is plain text.

        Answers inside a prompt are only read, never learnt or judged.
        """
        if self.messages:
            return [self.messages]
        asked = [{**one, "weight": 0} if one["role"] == "assistant" else one for one in self.prompt]
        return [[*asked, *answer] for answer in (self.chosen, self.rejected, self.completion) if answer]

    def shape(self) -> dict[str, Any]:
        """All that a model may read of it, by name."""
        return {name: getattr(self, name) for name in SHAPES[self.kind]} | ({"tools": self.tools} if self.tools else {})

    @property
    def content_id(self) -> str:
        """The same for all that say the same: whoever splits rows takes this, so that copies stay together."""
        return hashlib.sha256(self.to_bytes()).hexdigest()[:16]

    def to_bytes(self) -> bytes:
        """What identifies it."""
        kind = self.kind
        body = canonical_bytes(self.messages if kind == "chat" else [getattr(self, name) for name in SHAPES[kind]])
        tools = b"" if self.tools is None else canonical_bytes(self.tools)
        return b"%b%b\n%b\n" % (b"" if kind == "chat" else f"{kind} ".encode(), body, tools)


@dataclass(frozen=True, kw_only=True)
class Row(Content):
    """A canonical row: `id` comes from its first content and stays when the row is edited.

    line: where it began in the file it came with. split: the part of the dataset it belongs to, None where there are
    none. edited: what its content hashes to, None while its id says so.
    """

    id: str
    line: int
    split: str | None = None
    edited: str | None = None

    @property
    def content_id(self) -> str:
        return self.edited or content_id(self.id)


_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def canonical_json(value: object) -> str:
    """One text for one value. Key order is kept: it is what the model will read."""
    return _ENCODER.encode(value)


def canonical_bytes(value: object) -> bytes:
    """The same in UTF-8, fast where nothing is in it that orjson writes in another way than `canonical_json`.

    Raises UnicodeEncodeError for lone surrogates, ValueError for numbers that are none.
    """
    if not _holds_floats(value):
        try:
            return orjson.dumps(value)
        except TypeError:  # lone surrogates, integers of more than 64 bits
            pass
    return canonical_json(value).encode()


def _holds_floats(value: object) -> bool:
    if isinstance(value, dict):
        return any([type(inner) is not str and _holds_floats(inner) for inner in value.values()])
    if isinstance(value, list):
        return any(_holds_floats(inner) for inner in value)
    return isinstance(value, float)


def content_id(row_id: str) -> str:
    """What a row's id says of its first content: the same for all copies of a row, which differ by a running number."""
    return row_id.partition(COPY)[0]


def count_rows(path: Path) -> int:
    """How many rows a rows.parquet holds."""
    return int(pq.read_metadata(path).num_rows)


@lru_cache(maxsize=8)
def description(path: Path, changed: int) -> pq.FileMetaData:
    """What the file says of itself, kept: of a million rows it takes 60 ms to read. `changed`: the file's own time."""
    return pq.read_metadata(path)


def read_rows(path: Path, start: int, count: int) -> list[Row]:
    """`count` rows from number `start` (from 0) on, fewer at the end; reads only the groups they lie in."""
    meta = description(path, path.stat().st_mtime_ns)
    with pq.ParquetFile(path, metadata=meta) as file:
        ends = list(accumulate(meta.row_group(n).num_rows for n in range(meta.num_row_groups)))
        stop = min(start + count, meta.num_rows)
        if start >= stop:
            return []
        first, last = bisect_right(ends, start), bisect_right(ends, stop - 1)
        offset = start - (ends[first - 1] if first else 0)
        table = file.read_row_groups(list(range(first, last + 1))).slice(offset, stop - start)
        return [row_of(record) for record in table.to_pylist()]


def iter_rows(path: Path) -> Iterator[Row]:
    """All rows in order, one group in memory at a time."""
    with pq.ParquetFile(path) as file:
        for number in range(file.metadata.num_row_groups):
            for record in file.read_row_group(number).to_pylist():
                yield row_of(record)


def row_of(record: dict[str, Any]) -> Row:
    """A row of a file; one from before there were other kinds than chat has fewer columns."""
    plain = {name: record[name] for name in ("id", "line")}
    held = {name: value for name, value in record.items() if name in SCHEMA.names and value is not None}
    return Row(**{name: json.loads(v) if name in IN_JSON else v for name, v in held.items()} | plain)
