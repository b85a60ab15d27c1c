"""Writes canonical rows to rows.parquet by row group: Arrow columns built from bytes, without an object per cell."""

from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import accumulate, pairwise
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from trainer.formats.canonical import (
    BYTES_PER_GROUP,
    COPY_MARK,
    JSON_COLUMNS,
    ROWS_PER_GROUP,
    SCHEMA,
    SHAPES,
    Content,
    canonical_bytes,
    content_id,
)
from trainer.formats.earlier_splits import EarlierSplits
from trainer.formats.publishing import EarlySync

LARGE = pa.large_string()


class RowGroup:
    """The rows of one Parquet row group before they are written; another process may have built it.

    lines: where each row began. keys: the first 64 bits of each content hash. hashed: the bytes of the dataset's hash.
    """

    def __init__(self) -> None:
        self.lines = array("q")
        self.keys = array("Q")
        self.hashed: list[bytes] = []
        self.cells: dict[str, list[bytes | None]] = {}
        self.labels: list[bool | None] = []
        self._size = 0
        self._sealed: dict[str, TextColumn] = {}

    def __len__(self) -> int:
        return len(self.lines)

    @property
    def room(self) -> int:
        """How many more rows fit; 0 when it is full."""
        return ROWS_PER_GROUP - len(self.lines) if self._size < BYTES_PER_GROUP else 0

    def add(self, line: int, content: Content) -> None:
        """Raises UnicodeEncodeError for lone surrogates, which UTF-8 cannot encode."""
        cells = _cells(content)
        self._append(line, _hashed_bytes(content, cells), cells, label=content.label)

    def add_messages(self, lines: Sequence[int], messages: Sequence[bytes]) -> None:
        """Add many rows that hold only messages, given as canonical bytes, with little work per row."""
        rows = len(self.lines)
        digests = b"".join([sha256(one + b"\n\n").digest() for one in messages])
        self.lines.extend(lines)
        self.keys.frombytes(np.frombuffer(digests, ">u8")[::4].astype(np.uint64).tobytes())
        self.hashed.append(b"\n\n".join([*messages, b""]))
        self.labels += [None] * len(messages)
        self._size += len(self.hashed[-1])
        self.cells.setdefault("messages", [None] * rows).extend(messages)
        self._fill()

    def _append(self, line: int, hashed: bytes, cells: Mapping[str, bytes | None], *, label: bool | None) -> None:
        rows = len(self.lines)
        self.lines.append(line)
        self.keys.append(int.from_bytes(sha256(hashed).digest()[:8], "big"))
        self.hashed.append(hashed)
        self.labels.append(label)
        self._size += len(hashed)
        for name, cell in cells.items():
            if name not in self.cells:
                self.cells[name] = [None] * rows
            self.cells[name].append(cell)
        if len(self.cells) > len(cells):
            self._fill()

    def _fill(self) -> None:
        """Append nulls to the columns that the last rows do not have."""
        rows = len(self.lines)
        for column in self.cells.values():
            if len(column) < rows:
                column.extend([None] * (rows - len(column)))

    def seal(self) -> None:
        """Merge the cells into few large buffers; no more rows are added."""
        if self.cells:
            self._sealed = {name: TextColumn.of(column) for name, column in self.cells.items()}
            self.cells, self.hashed = {}, [b"".join(self.hashed)]

    def move(self, move: Callable[[Any], Any]) -> None:
        """Replace each large buffer by `move` of it, to or from shared memory."""
        self.hashed = [move(piece) for piece in self.hashed]
        for texts in self._sealed.values():
            texts.data = move(texts.data)

    def columns(self) -> dict[str, pa.Array]:
        """The Arrow columns by name."""
        self.seal()
        columns = {name: texts.column(LARGE) for name, texts in self._sealed.items()}
        columns["line"] = _column(pa.int64(), len(self), [None, self.lines])
        if self.labels.count(None) < len(self):
            labels = [_validity_bitmap(self.labels), _bitmap([bool(label) for label in self.labels])]
            columns["label"] = _column(pa.bool_(), len(self), labels)
        return columns


def _cells(content: Content) -> dict[str, bytes | None]:
    """The text columns of a row."""
    if content.messages and content.tools is None and not content.extra:
        return {"messages": canonical_bytes(content.messages)}
    cells: dict[str, bytes | None] = {"extra": canonical_bytes(content.extra)} if content.extra else {}
    for name in (*SHAPES[content.kind], "tools"):
        value = getattr(content, name)
        if name in JSON_COLUMNS and value is not None:
            cells[name] = canonical_bytes(value)
        elif name == "text":
            cells[name] = value.encode()
    return cells


def _hashed_bytes(content: Content, cells: dict[str, bytes | None]) -> bytes:
    """The same as Content.to_bytes, from the cells at hand."""
    if "messages" in cells:
        return b"\n".join((cells["messages"] or b"", cells.get("tools") or b"", b""))
    return content.to_bytes()


# Columns are built from buffers: pa.array() would import pandas where it is installed.


@dataclass
class TextColumn:
    """A column of UTF-8 texts as Arrow buffers. We wrote them, so they need no validation."""

    offsets: "array[int]"
    data: bytes
    validity: bytes | None

    @classmethod
    def of(cls, cells: Sequence[bytes | None]) -> "TextColumn":
        texts = [cell or b"" for cell in cells]
        return cls(array("q", accumulate(map(len, texts), initial=0)), b"".join(texts), _validity_bitmap(cells))

    @classmethod
    def of_keys(cls, keys: "array[int]") -> "TextColumn":
        """Each key as 16 hexadecimal digits."""
        digits = np.frombuffer(keys, np.uint64).astype(">u8").tobytes().hex()
        return cls(array("q", range(0, len(digits) + 1, 16)), digits.encode(), None)

    def texts(self) -> list[str]:
        """The texts of a column without nulls."""
        return [self.data[start:end].decode() for start, end in pairwise(self.offsets)]

    def column(self, kind: pa.DataType) -> pa.Array:
        offsets = self.offsets if kind == LARGE else array("i", self.offsets)
        return _column(kind, len(offsets) - 1, [self.validity, offsets, self.data])


def _column(kind: pa.DataType, rows: int, pieces: Sequence[Any]) -> pa.Array:
    buffers = [None if piece is None else pa.py_buffer(piece) for piece in pieces]
    return pa.Array.from_buffers(kind, rows, buffers)


def _validity_bitmap(cells: Sequence[object]) -> bytes | None:
    return _bitmap([cell is not None for cell in cells]) if None in cells else None


def _bitmap(values: list[bool]) -> bytes:
    return np.packbits(np.array(values, bool), bitorder="little").tobytes()


class RowWriter:
    """Writes rows.parquet group by group, and hashes it. Copies of a row get a number in their id.

    `taken`: ids of rows that are written later with their own id. `earlier`: the splits that new rows take over.
    """

    def __init__(self, path: Path, *, taken: set[str] | None = None, earlier: EarlierSplits | None = None) -> None:
        # Twice the size of zstd, but half the time: every page of a table reads many groups.
        self._parquet = pq.ParquetWriter(
            path, SCHEMA, compression="lz4", use_dictionary=["split"], write_statistics=False
        )
        self._early = EarlySync(path)
        self._taken = taken or set()
        self._earlier = earlier
        self._hash = sha256()
        self._seen: set[int] = set()
        self._times: dict[int, int] = {}  # of contents seen more than once
        self._group = RowGroup()
        self._assigned: dict[str, list[str | None]] = {"id": [], "split": [], "edited": []}
        self.rows = 0
        self.duplicates = 0

    def add(self, line: int, content: Content, *, row_id: str = "", split: str | None = None) -> str:
        """Returns the row's id, which is `row_id` if given. Raises UnicodeEncodeError for lone surrogates."""
        self._group.add(line, content)
        key = self._group.keys[-1]
        new_id = self._identify(key, row_id)
        self._assigned["id"].append(new_id)
        self._assigned["split"].append(self._earlier.take(new_id) if self._earlier else split)
        self._assigned["edited"].append(f"{key:016x}" if row_id and content_id(row_id) != f"{key:016x}" else None)
        if not self._group.room:
            self._flush()
        return new_id

    def add_group(self, group: RowGroup) -> None:
        """Write rows that were grouped elsewhere."""
        self._flush()
        ids = self._identify_all(group.keys)
        assigned = {"id": ids}
        if self._earlier:
            parts = [self._earlier.take(one) for one in ids.texts()]
            assigned["split"] = TextColumn.of([part.encode() if part else None for part in parts])
        self._write(group, assigned)

    def _identify_all(self, keys: "array[int]") -> TextColumn:
        """Ids of rows that bring none."""
        new = set(keys)
        if self._taken or len(new) < len(keys) or not self._seen.isdisjoint(new):
            return TextColumn.of([self._identify(key).encode() for key in keys])
        self._seen |= new
        self.rows += len(new)
        return TextColumn.of_keys(keys)

    def _identify(self, key: int, row_id: str = "") -> str:
        """Count a row with this content. Returns its id: the given one or a new one."""
        number = 1
        if key in self._seen:
            number = self._times[key] = self._times.get(key, 1) + 1
        self._seen.add(key)
        self.rows += 1
        self.duplicates += number > 1
        if row_id:
            return row_id
        row_id = f"{key:016x}" + (f"{COPY_MARK}{number}" if number > 1 else "")  # see content_id
        while row_id in self._taken:
            number += 1
            row_id = f"{key:016x}{COPY_MARK}{number}"
        if self._taken:
            self._taken.add(row_id)
        return row_id

    def _flush(self) -> None:
        assigned = {
            name: TextColumn.of([None if one is None else one.encode() for one in column])
            for name, column in self._assigned.items()
        }
        self._write(self._group, assigned)
        self._group = RowGroup()
        self._assigned = {"id": [], "split": [], "edited": []}

    def _write(self, group: RowGroup, assigned: Mapping[str, TextColumn]) -> None:
        """Write one row group."""
        if not len(group):
            return
        for hashed in group.hashed:
            self._hash.update(hashed)
        columns = group.columns() | {name: texts.column(pa.string()) for name, texts in assigned.items()}
        cells = [columns[one.name] if one.name in columns else pa.nulls(len(group), one.type) for one in SCHEMA]
        self._parquet.write_table(pa.Table.from_arrays(cells, schema=SCHEMA))
        self._early.start_writeback()

    @property
    def content_hash(self) -> str:
        """SHA-256 over all rows in order, without their line numbers."""
        self._flush()
        return self._hash.hexdigest()

    def __enter__(self) -> "RowWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is None:
            self._flush()
        self._parquet.close()
        self._early.close()
