"""Writes canonical rows to rows.parquet, whole groups at a time: columns of bytes all the way, no object for a cell."""

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
    COPY,
    IN_JSON,
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
        self._sealed: dict[str, Texts] = {}

    def __len__(self) -> int:
        return len(self.lines)

    @property
    def room(self) -> int:
        """For how many rows, 0 when it is full."""
        return ROWS_PER_GROUP - len(self.lines) if self._size < BYTES_PER_GROUP else 0

    def add(self, line: int, content: Content) -> None:
        """Raises UnicodeEncodeError for text that no file can hold (lone surrogates)."""
        cells = _cells(content)
        self._append(line, _whole(content, cells), cells, label=content.label)

    def add_messages(self, lines: Sequence[int], messages: Sequence[bytes]) -> None:
        """Rows that are nothing but messages, in their canonical bytes: many at a time, with hardly a step for each."""
        rows = len(self.lines)
        digests = b"".join([sha256(one + b"\n\n").digest() for one in messages])
        self.lines.extend(lines)
        self.keys.frombytes(np.frombuffer(digests, ">u8")[::4].astype(np.uint64).tobytes())
        self.whole.append(b"\n\n".join([*messages, b""]))
        self.labels += [None] * len(messages)
        self._size += len(self.whole[-1])
        self.cells.setdefault("messages", [None] * rows).extend(messages)
        self._fill()

    def _append(self, line: int, whole: bytes, cells: Mapping[str, bytes | None], *, label: bool | None) -> None:
        rows = len(self.lines)
        self.lines.append(line)
        self.keys.append(int.from_bytes(sha256(whole).digest()[:8], "big"))
        self.whole.append(whole)
        self.labels.append(label)
        self._size += len(whole)
        for name, cell in cells.items():
            if name not in self.cells:
                self.cells[name] = [None] * rows
            self.cells[name].append(cell)
        if len(self.cells) > len(cells):
            self._fill()

    def _fill(self) -> None:
        """Say of the last rows that they have nothing in the columns that only others have."""
        rows = len(self.lines)
        for column in self.cells.values():
            if len(column) < rows:
                column.extend([None] * (rows - len(column)))

    def seal(self) -> None:
        """Nothing more is to come: what it holds becomes few large pieces."""
        if self.cells:
            self._sealed = {name: Texts.of(column) for name, column in self.cells.items()}
            self.cells, self.whole = {}, [b"".join(self.whole)]

    def move(self, move: Callable[[Any], Any]) -> None:
        """Let the large pieces lie elsewhere, or find them there."""
        self.whole = [move(piece) for piece in self.whole]
        for texts in self._sealed.values():
            texts.blob = move(texts.blob)

    def columns(self) -> dict[str, pa.Array]:
        """What the rows say, by name of column."""
        self.seal()
        columns = {name: texts.column(LARGE) for name, texts in self._sealed.items()}
        columns["line"] = _column(pa.int64(), len(self), [None, self.lines])
        if self.labels.count(None) < len(self):
            labels = [_there(self.labels), _bits([bool(label) for label in self.labels])]
            columns["label"] = _column(pa.bool_(), len(self), labels)
        return columns


def _cells(content: Content) -> dict[str, bytes | None]:
    """The columns of text that a row of this kind fills."""
    if content.messages and content.tools is None and not content.extra:
        return {"messages": canonical_bytes(content.messages)}
    cells: dict[str, bytes | None] = {"extra": canonical_bytes(content.extra)} if content.extra else {}
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


# Columns are made of their bytes: pa.array() would load all of pandas where that is installed.


@dataclass
class Texts:
    """A column of texts in UTF-8 that we wrote ourselves, so that nobody has to look at them again."""

    offsets: "array[int]"
    blob: bytes
    there: bytes | None

    @classmethod
    def of(cls, cells: Sequence[bytes | None]) -> "Texts":
        said = [cell or b"" for cell in cells]
        return cls(array("q", accumulate(map(len, said), initial=0)), b"".join(said), _there(cells))

    @classmethod
    def of_keys(cls, keys: "array[int]") -> "Texts":
        """Each as 16 hexadecimal digits."""
        digits = np.frombuffer(keys, np.uint64).astype(">u8").tobytes().hex()
        return cls(array("q", range(0, len(digits) + 1, 16)), digits.encode(), None)

    def texts(self) -> list[str]:
        """Of a column in which nothing is missing."""
        return [self.blob[start:end].decode() for start, end in pairwise(self.offsets)]

    def column(self, kind: pa.DataType) -> pa.Array:
        offsets = self.offsets if kind == LARGE else array("i", self.offsets)
        return _column(kind, len(offsets) - 1, [self.there, offsets, self.blob])


def _column(kind: pa.DataType, rows: int, pieces: Sequence[Any]) -> pa.Array:
    buffers = [None if piece is None else pa.py_buffer(piece) for piece in pieces]
    return pa.Array.from_buffers(kind, rows, buffers)


def _there(cells: Sequence[object]) -> bytes | None:
    return _bits([cell is not None for cell in cells]) if None in cells else None


def _bits(values: list[bool]) -> bytes:
    return np.packbits(np.array(values, bool), bitorder="little").tobytes()


class RowWriter:
    """Writes rows.parquet group by group, hashing as it goes. Equal rows get ids with a running number.

    `taken`: ids that rows yet to come bring along, which no new row may get. `earlier`: whose parts new rows take over.
    """

    def __init__(self, path: Path, *, taken: set[str] | None = None, earlier: EarlierSplits | None = None) -> None:
        # Twice as large as with zstd, and written and read in half the time: every page of a table reads many groups.
        self._parquet = pq.ParquetWriter(
            path, SCHEMA, compression="lz4", use_dictionary=["split"], write_statistics=False
        )
        self._early = EarlySync(path)
        self._taken = taken or set()
        self._earlier = earlier
        self._hash = sha256()
        self._seen: set[int] = set()
        self._times: dict[int, int] = {}  # of what was seen more than once
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
        self._given["split"].append(self._earlier.take(new_id) if self._earlier else split)
        self._given["edited"].append(f"{key:016x}" if row_id and content_id(row_id) != f"{key:016x}" else None)
        if not self._pack.room:
            self._flush()
        return new_id

    def add_pack(self, pack: Pack) -> None:
        """Rows that were packed elsewhere, in their order."""
        self._flush()
        ids = self._identify_all(pack.keys)
        given = {"id": ids}
        if self._earlier:
            parts = [self._earlier.take(one) for one in ids.texts()]
            given["split"] = Texts.of([part.encode() if part else None for part in parts])
        self._write(pack, given)

    def _identify_all(self, keys: "array[int]") -> Texts:
        """Ids of rows that bring none."""
        new = set(keys)
        if self._taken or len(new) < len(keys) or not self._seen.isdisjoint(new):
            return Texts.of([self._identify(key).encode() for key in keys])
        self._seen |= new
        self.rows += len(new)
        return Texts.of_keys(keys)

    def _identify(self, key: int, row_id: str = "") -> str:
        """Note one more row of this content. Returns its id: the one it brings, or a new one."""
        number = 1
        if key in self._seen:
            number = self._times[key] = self._times.get(key, 1) + 1
        self._seen.add(key)
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
        given = {
            name: Texts.of([None if one is None else one.encode() for one in column])
            for name, column in self._given.items()
        }
        self._write(self._pack, given)
        self._pack = Pack()
        self._given = {"id": [], "split": [], "edited": []}

    def _write(self, pack: Pack, given: Mapping[str, Texts]) -> None:
        """One group of the file."""
        if not len(pack):
            return
        for whole in pack.whole:
            self._hash.update(whole)
        columns = pack.columns() | {name: texts.column(pa.string()) for name, texts in given.items()}
        cells = [columns[one.name] if one.name in columns else pa.nulls(len(pack), one.type) for one in SCHEMA]
        self._parquet.write_table(pa.Table.from_arrays(cells, schema=SCHEMA))
        self._early.go_on()

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
        self._early.close()
