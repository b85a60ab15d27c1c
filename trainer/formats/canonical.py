"""Canonical rows: the few shapes that everything after the upload reads, as Parquet with content-based ids."""

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

ROWS_PER_GROUP = 500  # a page of search results reads a group per row; smaller groups make the metadata long
BYTES_PER_GROUP = 32 * 1024 * 1024  # groups of long rows hold fewer rows, which bounds memory
COPY_MARK = "-"  # in an id, before the number of a further copy of a row

Kind = Literal["chat", "text", "preference", "labelled"]

# The columns of each kind, apart from tools. Messages are stored as JSON.
SHAPES: dict[Kind, tuple[str, ...]] = {
    "chat": ("messages",),
    "text": ("text",),
    "preference": ("prompt", "chosen", "rejected"),
    "labelled": ("prompt", "completion", "label"),
}
MESSAGE_COLUMNS = ("messages", "prompt", "chosen", "rejected", "completion")
JSON_COLUMNS = (*MESSAGE_COLUMNS, "tools", "extra")
TOKENS_FOLDER = "tokens"  # beside the rows: their tokenised form, see trainer.token_cache
SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("line", pa.int64(), nullable=False),
        *(pa.field(name, pa.large_string()) for name in (*MESSAGE_COLUMNS, "tools", "text")),
        pa.field("label", pa.bool_()),
        pa.field("split", pa.string()),
        pa.field("edited", pa.string()),  # see Row.content_id
        pa.field("extra", pa.large_string()),  # see Content.extra; JSON
    ]
)


@dataclass(frozen=True, kw_only=True)
class Content:
    """What a row holds, in one of the SHAPES; the fields of the others are empty.

    messages: a conversation. text: plain text, for no chat template. prompt: the messages before the answer, with
    either a chosen and a rejected answer, or a completion and a label (true if it is good). extra: values of other
    columns, which are no part of the row's identity.
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
        """The conversations a model reads: none for plain text, for preference two with different answers, else one.

        Answers inside a prompt are context only: they get weight 0.
        """
        if self.messages:
            return [self.messages]
        asked = [{**one, "weight": 0} if one["role"] == "assistant" else one for one in self.prompt]
        return [[*asked, *answer] for answer in (self.chosen, self.rejected, self.completion) if answer]

    def shape(self) -> dict[str, Any]:
        """Everything a model may read, by name."""
        return {name: getattr(self, name) for name in SHAPES[self.kind]} | ({"tools": self.tools} if self.tools else {})

    @property
    def content_id(self) -> str:
        """Equal for rows with equal content. Splits are drawn by it, so that copies stay together."""
        return hashlib.sha256(self.to_bytes()).hexdigest()[:16]

    def to_bytes(self) -> bytes:
        """The bytes that the content hash is computed from."""
        kind = self.kind
        body = canonical_bytes(self.messages if kind == "chat" else [getattr(self, name) for name in SHAPES[kind]])
        tools = b"" if self.tools is None else canonical_bytes(self.tools)
        return b"%b%b\n%b\n" % (b"" if kind == "chat" else f"{kind} ".encode(), body, tools)


@dataclass(frozen=True, kw_only=True)
class Row(Content):
    """A canonical row. `id` is derived from its first content, and stays when the row is edited.

    line: where the row began in the uploaded file. split: the split it belongs to, None in a dataset without splits.
    edited: the hash of its content if that differs from the id.
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
    """A unique text for a value. Key order is kept, because the model will read it."""
    return _ENCODER.encode(value)


def canonical_bytes(value: object) -> bytes:
    """`canonical_json` in UTF-8. Uses the faster orjson where both write the same.

    Raises UnicodeEncodeError for lone surrogates and ValueError for NaN and infinity.
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
    """The hash of the row's first content, from its id; copies of a row differ only in the number after it."""
    return row_id.partition(COPY_MARK)[0]


def count_rows(path: Path) -> int:
    return int(pq.read_metadata(path).num_rows)


@lru_cache(maxsize=8)
def parquet_metadata(path: Path, modified: int) -> pq.FileMetaData:
    """The file's metadata, cached by mtime: parsing it takes 60 ms for a million rows."""
    return pq.read_metadata(path)


def read_rows(path: Path, start: int, count: int) -> list[Row]:
    """`count` rows from row `start` (from 0) on, fewer at the end. Reads only the row groups they lie in."""
    meta = parquet_metadata(path, path.stat().st_mtime_ns)
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
    """All rows in order, with one row group in memory at a time."""
    with pq.ParquetFile(path) as file:
        for number in range(file.metadata.num_row_groups):
            for record in file.read_row_group(number).to_pylist():
                yield row_of(record)


def row_of(record: dict[str, Any]) -> Row:
    """A row from its record. Files written before there were kinds other than chat have fewer columns."""
    plain = {name: record[name] for name in ("id", "line")}
    held = {name: value for name, value in record.items() if name in SCHEMA.names and value is not None}
    return Row(**{name: json.loads(v) if name in JSON_COLUMNS else v for name, v in held.items()} | plain)
