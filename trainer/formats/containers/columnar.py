"""Parquet and Arrow files: read in slices of bounded size, each row as JSON-like values."""

import math
from collections.abc import Callable, Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import ipc

from trainer.formats.containers.packed import ALWAYS_ALLOWED, MAX_RATIO
from trainer.formats.containers.record import MAX_RECORD, SEPARATORS, TOO_LONG, Notes, Record
from trainer.formats.problems import BadFile, BadRow
from trainer.formats.strict import MAX_DEPTH

PARQUET, ARROW_FILE, ARROW_STREAM = b"PAR1", b"ARROW1", b"\xff\xff\xff\xff"
SLICE_BYTES = 8 * 1024 * 1024
MAX_ROWS, FIRST_ROWS = 1024, 64  # per slice
METADATA_BYTES = 64 * 1024 * 1024  # limit for the metadata of a Parquet file
FIX_DAMAGED = "Write the file again, or convert it to JSONL."
PER_STREAM = 1024 * 1024


def read_parquet(file: BinaryIO, notes: Notes, *, size: int) -> Iterator[Record]:
    """Every row of a Parquet file of `size` bytes."""
    return _records(lambda: _parquet_slices(file), notes, size)


def read_arrow(file: BinaryIO, notes: Notes, *, size: int, stream: bool) -> Iterator[Record]:
    """Every row of an Arrow file, in the file or the stream format."""
    return _records(lambda: _arrow_slices(file, stream=stream), notes, size)


def _parquet_slices(file: BinaryIO) -> Iterator[pa.RecordBatch]:
    with pq.ParquetFile(
        file,
        buffer_size=PER_STREAM,
        pre_buffer=False,
        thrift_string_size_limit=METADATA_BYTES,
        thrift_container_size_limit=1_000_000,
    ) as parquet:
        _check_names(parquet.schema_arrow)
        yield from parquet.iter_batches(batch_size=FIRST_ROWS, use_threads=False)


def _arrow_slices(file: BinaryIO, *, stream: bool) -> Iterator[pa.RecordBatch]:
    opened = ipc.open_stream(file) if stream else ipc.open_file(file)
    with opened as reader:
        _check_names(reader.schema)
        batches = reader if stream else (reader.get_batch(n) for n in range(reader.num_record_batches))
        for batch in batches:
            batch.validate(full=True)  # never follow offsets of an untrusted file before
            rows = max(1, min(MAX_ROWS, SLICE_BYTES * batch.num_rows // max(1, batch.nbytes)))
            for start in range(0, batch.num_rows, rows):
                yield batch.slice(start, rows)


def _check_names(schema: pa.Schema) -> None:
    if twice := next((name for name in schema.names if schema.names.count(name) > 1), ""):
        raise BadFile(1, "the same column twice", "Rename or remove one of the two.", field=twice)


def _records(slices: Callable[[], Iterator[pa.RecordBatch]], notes: Notes, size: int) -> Iterator[Record]:
    """Rows numbered from 1, up to what a file of this size may unpack to. Arrow's errors become BadFile."""
    number, left = 0, max(ALWAYS_ALLOWED, MAX_RATIO * size)
    converter = JsonConverter(notes)
    try:
        for batch in slices():
            columns = [(name, column) for name, column in zip(batch.schema.names, batch.columns, strict=True)]
            for at in range(batch.num_rows):
                number += 1
                record = converter.record(number, {name: column[at] for name, column in columns})
                if converter.characters > left:
                    raise BadFile(number, "unpacks to far more than its size", "Convert the file to JSONL.")
                yield record
    except MemoryError:
        fix = "Write it with smaller row groups, or convert it to JSONL."
        raise BadFile(number + 1, "a part of the file is too large for the memory", fix) from None
    except (pa.ArrowException, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # from the disk, not from Arrow
            raise
        shown = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise BadFile(number + 1, "the file is damaged or cut off", FIX_DAMAGED, text=shown) from error


class JsonConverter:
    """Converts Arrow values to JSON values, and notes what that changed."""

    def __init__(self, notes: Notes) -> None:
        self._notes = notes
        self._nulls = self._separators = False
        self.characters = 0  # in all texts so far

    def record(self, number: int, scalars: dict[str, "pa.Scalar[Any]"]) -> Record:
        self._nulls = self._separators = False
        value: dict[str, Any] = {}
        try:
            for name, scalar in scalars.items():
                value[name] = self._scalar(scalar, name)
        except BadRow as bad:
            return Record(number, "", found=bad.found)
        self._notes["null fields"] += self._nulls
        self._notes["separators"] += self._separators
        return Record(number, "", value)

    def _scalar(self, scalar: "pa.Scalar[Any]", where: str) -> Any:
        try:
            return self._value(scalar.as_py(maps_as_pydicts="strict"), where, 1)
        except UnicodeDecodeError:
            raise BadRow(where, "text that is not UTF-8", "Write this column as text.") from None
        except (KeyError, ValueError, OverflowError, pa.ArrowException) as error:
            raise BadRow(where, f"a value that JSON does not know: {error}"[:150], "Write it as text.") from None

    def _value(self, value: Any, where: str, depth: int) -> Any:
        if value is None or isinstance(value, bool | int):
            return value
        if isinstance(value, str):
            return self._text(value, where)
        if depth > MAX_DEPTH:
            raise BadRow(where, f"nested deeper than {MAX_DEPTH} levels", "Flatten this row.")
        if isinstance(value, dict):
            kept = {name: self._value(inner, f"{where}.{name}", depth + 1) for name, inner in value.items()}
            filled = {name: inner for name, inner in kept.items() if inner is not None}
            self._nulls = self._nulls or len(filled) < len(kept)
            return filled
        if isinstance(value, list):
            return [self._value(inner, where, depth + 1) for inner in value]
        return self._uncommon(value, where)

    def _text(self, value: str, where: str) -> str:
        self.characters += len(value)
        if len(value) > MAX_RECORD:
            raise BadRow(where, TOO_LONG.problem, TOO_LONG.fix)
        if "\0" in value:
            raise BadRow(where, "NUL character", "Remove it from this row.")
        self._separators = self._separators or any(mark in value for mark in SEPARATORS)
        return value

    def _uncommon(self, value: Any, where: str) -> Any:
        if isinstance(value, float):
            if math.isfinite(value):
                return value
            self._notes["not a number"] += 1
            return None
        if isinstance(value, bytes):
            self._notes["bytes"] += 1
            return self._text(value.decode(), where)
        if isinstance(value, datetime | date | time):
            self._notes["as text"] += 1
            return value.isoformat()
        if isinstance(value, Decimal | timedelta):
            self._notes["as text"] += 1
            return str(value)
        raise BadRow(where, f"a value that JSON does not know: {type(value).__name__}", "Write it as text.")
