"""Single rows of a rows.parquet by number, fast enough for a page: metadata is read once."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Collection
from functools import lru_cache
from itertools import accumulate
from pathlib import Path

import pyarrow.parquet as pq

from trainer.formats.canonical import SCHEMA, Row, parquet_metadata, row_of


@lru_cache(maxsize=8)
def _facts(path: Path, modified: int) -> tuple[pq.FileMetaData, list[int], list[str]]:
    """The metadata, the number of the last row of each group, and the known columns of the file."""
    meta = parquet_metadata(path, modified)
    ends = list(accumulate(meta.row_group(number).num_rows for number in range(meta.num_row_groups)))
    first = meta.row_group(0) if ends else None
    names = [first.column(place).path_in_schema for place in range(meta.num_columns)] if first else []
    known = [name for name in names if name in SCHEMA.names]
    return meta, ends, known


def rows_at(path: Path, numbers: Collection[int]) -> dict[int, Row]:
    """The rows with these numbers (from 1) that the file has; reads only the groups they lie in."""
    meta, ends, names = _facts(path, path.stat().st_mtime_ns)
    by_group: dict[int, list[int]] = defaultdict(list)
    for number in sorted(numbers):
        if 0 < number <= meta.num_rows:
            by_group[bisect_right(ends, number - 1)].append(number)
    found = {}
    with pq.ParquetFile(path, metadata=meta) as file:
        for group, wanted in by_group.items():
            before = ends[group - 1] if group else 0
            table = file.read_row_group(group, columns=names, use_threads=False)
            for number in wanted:  # take() would first import compute functions for half a second
                found[number] = row_of(table.slice(number - 1 - before, 1).to_pylist()[0])
    return found
