"""Canonical rows, the one shape everything after the upload reads: Parquet of chat messages, addressed by content."""

import hashlib
import json
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

Message = dict[str, Any]
Tools = list[dict[str, Any]]

ROWS_PER_GROUP = 1000  # one page of a preview reads one group
BYTES_PER_GROUP = 32 * 1024 * 1024  # long rows make smaller groups, so that memory stays flat
COPY = "-"  # in an id, before the running number of a row that was there before

SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("line", pa.int64(), nullable=False),
        pa.field("messages", pa.large_string(), nullable=False),
        pa.field("tools", pa.large_string()),
    ]
)


@dataclass(frozen=True)
class Row:
    """A canonical row: `id` comes from its content, `line` is where it began in the original file."""

    id: str
    line: int
    messages: list[Message]
    tools: Tools | None = None


_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def canonical_json(value: object) -> str:
    """One text for one value. Key order is kept: it is what the model will read."""
    return _ENCODER.encode(value)


def content_id(row_id: str) -> str:
    """What a row's id says of its content alone: the same for all copies of a row, which differ by a running number.

    Whoever splits rows by their ids takes this, so that copies stay together.
    """
    return row_id.partition(COPY)[0]


class RowWriter:
    """Writes rows.parquet group by group, hashing as it goes. Equal rows get ids with a running number."""

    def __init__(self, path: Path) -> None:
        self._parquet = pq.ParquetWriter(path, SCHEMA, compression="zstd")
        self._hash = hashlib.sha256()
        self._seen: dict[int, int] = {}
        self._group: list[tuple[str, int, str, str | None]] = []
        self._group_bytes = 0
        self.rows = 0
        self.duplicates = 0

    def add(self, line: int, messages: list[Message], tools: Tools | None) -> None:
        """Raises UnicodeEncodeError for text that no file can hold (lone surrogates)."""
        body = canonical_json(messages)
        extra = None if tools is None else canonical_json(tools)
        content = f"{body}\n{extra or ''}\n".encode()
        digest = hashlib.sha256(content)
        self._hash.update(content)
        self._group.append((self._identify(digest), line, body, extra))
        self._group_bytes += len(content)
        self.rows += 1
        if len(self._group) >= ROWS_PER_GROUP or self._group_bytes >= BYTES_PER_GROUP:
            self._flush()

    def _identify(self, digest: "hashlib._Hash") -> str:
        key = int.from_bytes(digest.digest()[:8], "big")
        before = self._seen.get(key, 0)
        self._seen[key] = before + 1
        self.duplicates += before > 0
        return f"{key:016x}" + (f"{COPY}{before + 1}" if before else "")  # see content_id

    def _flush(self) -> None:
        if not self._group:
            return
        columns = [list(column) for column in zip(*self._group, strict=True)]
        arrays = [pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)]
        self._parquet.write_table(pa.Table.from_arrays(arrays, schema=SCHEMA))
        self._group.clear()
        self._group_bytes = 0

    @property
    def content_hash(self) -> str:
        """sha256 over all rows in order, whatever lines they stood on."""
        return self._hash.hexdigest()

    def __enter__(self) -> "RowWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is None:
            self._flush()
        self._parquet.close()


def count_rows(path: Path) -> int:
    """How many rows a rows.parquet holds."""
    return int(pq.read_metadata(path).num_rows)


def read_rows(path: Path, start: int, count: int) -> list[Row]:
    """`count` rows from number `start` (from 0) on, fewer at the end; reads only the groups they lie in."""
    with pq.ParquetFile(path) as file:
        meta = file.metadata
        ends = list(accumulate(meta.row_group(n).num_rows for n in range(meta.num_row_groups)))
        stop = min(start + count, meta.num_rows)
        if start >= stop:
            return []
        first, last = bisect_right(ends, start), bisect_right(ends, stop - 1)
        offset = start - (ends[first - 1] if first else 0)
        table = file.read_row_groups(list(range(first, last + 1))).slice(offset, stop - start)
        return [_row(record) for record in table.to_pylist()]


def iter_rows(path: Path) -> Iterator[Row]:
    """All rows in order, one group in memory at a time."""
    with pq.ParquetFile(path) as file:
        for number in range(file.metadata.num_row_groups):
            for record in file.read_row_group(number).to_pylist():
                yield _row(record)


def _row(record: dict[str, Any]) -> Row:
    tools = None if record["tools"] is None else json.loads(record["tools"])
    return Row(record["id"], record["line"], json.loads(record["messages"]), tools)
