"""Writes canonical rows to rows.parquet, whole groups at a time: columns of bytes all the way, no object for a cell."""

import hashlib
from array import array
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from trainer.formats.canonical import (
    BYTES_PER_GROUP,
    COPY,
    OF_MESSAGES,
    ROWS_PER_GROUP,
    SCHEMA,
    SHAPES,
    Content,
    canonical_bytes,
    content_id,
)

IN_JSON = (*OF_MESSAGES, "tools")
OF_TEXT = (*IN_JSON, "text")


class Pack:
    """The rows of one group on their way into the file; may have been made by another process.

    lines: where each began. keys: the first 64 bits of each content's hash. whole: what the hash of all is made of.
    """

    def __init__(self) -> None:
        self.lines = array("q")
        self.keys = array("Q")
        self.whole: list[bytes] = []
        self.cells: dict[str, list[bytes | None]] = {}
        self.labels: list[bool | None] = []
        self._size = 0
        self._sealed: dict[str, pa.Array] = {}

    def __len__(self) -> int:
        return len(self.lines)

    @property
    def is_full(self) -> bool:
        return len(self.lines) >= ROWS_PER_GROUP or self._size >= BYTES_PER_GROUP

    def add(self, line: int, content: Content) -> None:
        """Raises UnicodeEncodeError for text that no file can hold (lone surrogates)."""
        cells = _cells(content)
        whole = _whole(content, cells)
        rows = len(self.lines)
        self.lines.append(line)
        self.keys.append(int.from_bytes(hashlib.sha256(whole).digest()[:8], "big"))
        self.whole.append(whole)
        self.labels.append(content.label)
        self._size += len(whole)
        for name, cell in cells.items():
            if name not in self.cells:
                self.cells[name] = [None] * rows
            self.cells[name].append(cell)
        for name, column in self.cells.items():
            if name not in cells:
                column.append(None)

    def seal(self) -> None:
        """Nothing more is to come: what it holds in few large pieces, which another process gets at little cost."""
        self._sealed |= {name: text_column(column) for name, column in self.cells.items()}
        self.cells = {}
        self.whole = [b"".join(self.whole)]

    def columns(self) -> dict[str, pa.Array]:
        """What the rows say, by name of column."""
        self.seal()
        return self._sealed | {"line": pa.array(self.lines, pa.int64()), "label": pa.array(self.labels, pa.bool_())}


def _cells(content: Content) -> dict[str, bytes | None]:
    """The columns of text that a row of this kind fills."""
    if content.messages and content.tools is None:
        return {"messages": canonical_bytes(content.messages)}
    cells: dict[str, bytes | None] = {}
    for name in (*SHAPES[content.kind], "tools"):
        value = getattr(content, name)
        if name in IN_JSON and value is not None:
            cells[name] = canonical_bytes(value)
        elif name == "text":
            cells[name] = value.encode()
    return cells


def _whole(content: Content, cells: dict[str, bytes | None]) -> bytes:
    """The same as Content.to_bytes, from what is at hand."""
    if "messages" in cells:
        return b"\n".join((cells["messages"] or b"", cells.get("tools") or b"", b""))
    return content.to_bytes()


def text_column(cells: Sequence[bytes | None]) -> pa.Array:
    """UTF-8 that we wrote ourselves as a column, without looking at it again."""
    offsets = array("q", accumulate((len(cell) if cell else 0 for cell in cells), initial=0))
    nulls = cells.count(None)
    valid = pa.array([cell is not None for cell in cells]).buffers()[1] if nulls else None
    blob = pa.py_buffer(b"".join(cell for cell in cells if cell))
    return pa.LargeStringArray.from_buffers(len(cells), pa.py_buffer(offsets), blob, valid, nulls)


class RowWriter:
    """Writes rows.parquet group by group, hashing as it goes. Equal rows get ids with a running number.

    `taken`: ids that rows yet to come bring along, which no new row may get.
    """

    def __init__(self, path: Path, *, taken: set[str] | None = None) -> None:
        self._parquet = pq.ParquetWriter(
            path, SCHEMA, compression="zstd", use_dictionary=["split"], write_statistics=False
        )
        self._taken = taken or set()
        self._hash = hashlib.sha256()
        self._seen: dict[int, int] = {}
        self._pack = Pack()
        self._given: dict[str, list[str | None]] = {"id": [], "split": [], "edited": []}
        self.rows = 0
        self.duplicates = 0

    def add(self, line: int, content: Content, *, row_id: str = "", split: str | None = None) -> str:
        """Returns the row's id: `row_id` when it brings one. Raises UnicodeEncodeError for lone surrogates."""
        self._pack.add(line, content)
        key = self._pack.keys[-1]
        new_id = self._identify(key, row_id)
        self._given["id"].append(new_id)
        self._given["split"].append(split)
        self._given["edited"].append(f"{key:016x}" if row_id and content_id(row_id) != f"{key:016x}" else None)
        if self._pack.is_full:
            self._flush()
        return new_id

    def add_pack(self, pack: Pack) -> None:
        """Rows that were packed elsewhere, in their order."""
        self._flush()
        self._pack = pack
        nothing: list[str | None] = [None] * len(pack)
        self._given = {"id": [self._identify(key) for key in pack.keys], "split": nothing, "edited": nothing}
        self._flush()

    def _identify(self, key: int, row_id: str = "") -> str:
        """Note one more row of this content. Returns its id: the one it brings, or a new one."""
        number = self._seen.get(key, 0) + 1
        self._seen[key] = number
        self.rows += 1
        self.duplicates += number > 1
        if row_id:
            return row_id
        row_id = f"{key:016x}" + (f"{COPY}{number}" if number > 1 else "")  # see content_id
        while row_id in self._taken:
            number += 1
            row_id = f"{key:016x}{COPY}{number}"
        if self._taken:
            self._taken.add(row_id)
        return row_id

    def _flush(self) -> None:
        if not len(self._pack):
            return
        self._hash.update(b"".join(self._pack.whole))
        columns: dict[str, Any] = self._pack.columns() | {
            name: pa.array(given, pa.string()) for name, given in self._given.items()
        }
        empty = pa.nulls(len(self._pack), pa.large_string())
        self._parquet.write_table(pa.table([columns.get(name, empty) for name in SCHEMA.names], schema=SCHEMA))
        self._pack = Pack()
        self._given = {"id": [], "split": [], "edited": []}

    @property
    def content_hash(self) -> str:
        """sha256 over all rows in order, whatever lines they stood on."""
        self._flush()
        return self._hash.hexdigest()

    def __enter__(self) -> "RowWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is None:
            self._flush()
        self._parquet.close()
