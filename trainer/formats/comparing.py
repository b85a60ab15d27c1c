"""Compares two versions of a dataset by row ids and content hashes, without reading the texts."""

import hashlib
import json
from collections.abc import Collection
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from trainer.errors import TrainerError
from trainer.events import Emit, Finished
from trainer.formats.publishing import publish, staging_path

ID_LENGTH = 16  # of an id without its copy number
MAX_LISTED = 20_000  # changes listed per kind; all are counted
CHANGES = "changes.json"
CELLS_AT_ONCE = 1000  # of the extra columns: bounds memory, as a cell can be far longer than its hash


@dataclass(frozen=True)
class Difference:
    """Row positions from 0: in the older file, in the newer file, or in both.

    moved: only the split changed. beside: only values in the extra columns changed.
    """

    removed: list[int]
    added: list[int]
    edited: list[tuple[int, int]]
    moved: list[tuple[int, int]]
    beside: list[tuple[int, int]]

    @property
    def counts(self) -> dict[str, int]:
        counts = {"added": len(self.added), "removed": len(self.removed)}
        in_both = {"edited": len(self.edited), "moved": len(self.moved), "beside": len(self.beside)}
        return counts | in_both


def change_report(older: Path, newer: Path) -> dict[str, Any]:
    """The number of changes of each kind, and the first MAX_LISTED of each."""
    found = compare(older, newer)
    return {"counts": found.counts} | {one.name: getattr(found, one.name)[:MAX_LISTED] for one in fields(Difference)}


def compare_files(older: Path, newer: Path, out: Path, emit: Emit) -> None:
    """Write `out`/changes.json for two rows.parquet files, then emit Finished.

    Raises TrainerError(dataset_invalid) if one of them contains no canonical rows.
    """
    try:
        report = change_report(older, newer)
    except (FileNotFoundError, pa.ArrowInvalid, KeyError) as error:
        fix = "Give two rows.parquet that check or revise wrote."
        raise TrainerError("dataset_invalid", "One of the two files holds no canonical rows.", fix) from error
    with staging_path(out) as path:
        path.write_text(json.dumps(report))
        publish(path, out / CHANGES)
    emit(Finished(folder=str(out), facts=report["counts"]))


@dataclass(frozen=True)
class RowKeys:
    """What identifies the rows of a file: one array per column, in row order."""

    ids: pa.Array
    contents: pa.Array
    splits: pa.Array

    @classmethod
    def read(cls, path: Path) -> "RowKeys":
        """Files written before rows could be edited or split have fewer columns."""
        with pq.ParquetFile(path) as file:
            names = [name for name in ("id", "edited", "split") if name in file.schema_arrow.names]
            table = file.read(columns=names)
        ids = table["id"].combine_chunks()
        empty = pa.nulls(table.num_rows, pa.string())
        edited = table["edited"].combine_chunks() if "edited" in names else empty
        splits = table["split"].combine_chunks() if "split" in names else empty
        contents = pc.coalesce(edited, pc.utf8_slice_codeunits(ids, 0, ID_LENGTH))
        return cls(ids, contents, pc.fill_null(splits, ""))

    def take(self, positions: pa.Array) -> "RowKeys":
        return RowKeys(*(column.take(positions) for column in (self.ids, self.contents, self.splits)))


def _extra_hashes(path: Path) -> pa.Array:
    """A hash of each row's extra columns; 0 where there are none."""
    with pq.ParquetFile(path) as file:
        if "extra" not in file.schema_arrow.names:
            return pa.array(np.zeros(file.metadata.num_rows, np.uint64))
        batches = file.iter_batches(CELLS_AT_ONCE, columns=["extra"], use_threads=False)
        found = [_hashes(batch.column(0)) for batch in batches]
    return pa.array(np.concatenate([np.zeros(0, np.uint64), *found]))


def _hashes(cells: pa.Array) -> NDArray[np.uint64]:
    values = cells.cast(pa.large_binary()).to_pylist()
    return np.fromiter((_hash(cell) if cell else 0 for cell in values), np.uint64, len(values))


def _hash(cell: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(cell, digest_size=8).digest(), "big")


def compare(older: Path, newer: Path) -> Difference:
    """Rows with the same id are the same row. Among the rest, so are rows with equal content."""
    old, new = RowKeys.read(older), RowKeys.read(newer)
    found = pc.index_in(new.ids, value_set=old.ids)
    new_at, old_at = pc.indices_nonzero(found.is_valid()), found.drop_null()
    added = pc.indices_nonzero(found.is_null())
    removed = pc.indices_nonzero(pc.invert(pc.is_in(old.ids, value_set=new.ids)))
    before, after = old.take(old_at), new.take(new_at)
    same = pc.equal(before.contents, after.contents)
    moved = pc.and_(same, pc.not_equal(before.splits, after.splits))
    extra_changed = pc.not_equal(_extra_hashes(older).take(old_at), _extra_hashes(newer).take(new_at))
    beside = pc.and_(pc.and_(same, pc.invert(moved)), extra_changed)
    twins = _twins(old, new, removed, added)
    returned_from, returned_as = {one for one, _ in twins}, {one for _, one in twins}
    return Difference(
        removed=[one for one in removed.to_pylist() if one not in returned_from],
        added=[one for one in added.to_pylist() if one not in returned_as],
        edited=_pairs(old_at, new_at, pc.invert(same)),
        moved=_pairs(old_at, new_at, moved) + [(a, b) for a, b in twins if old.splits[a] != new.splits[b]],
        beside=_pairs(old_at, new_at, beside),
    )


def _pairs(old_at: pa.Array, new_at: pa.Array, mask: pa.Array) -> list[tuple[int, int]]:
    return list(zip(old_at.filter(mask).to_pylist(), new_at.filter(mask).to_pylist(), strict=True))


def _twins(old: RowKeys, new: RowKeys, removed: pa.Array, added: pa.Array) -> list[tuple[int, int]]:
    """Rows that look removed and added but have equal content: an edited row that was uploaded again."""
    left, right = old.contents.take(removed), new.contents.take(added)
    both = pc.is_in(right, value_set=left)
    if not pc.any(both).as_py():
        return []
    positions: dict[str, list[int]] = {}
    for position, content in zip(reversed(removed.to_pylist()), reversed(left.to_pylist()), strict=True):
        positions.setdefault(content, []).append(position)
    wanted = zip(added.filter(both).to_pylist(), right.filter(both).to_pylist(), strict=True)
    return [(positions[content].pop(), position) for position, content in wanted if positions[content]]


def content_ids(path: Path, row_ids: Collection[str]) -> dict[str, str]:
    """The content hash of each of these rows, by row id; ids that are not in the file are left out."""
    if not row_ids:
        return {}
    keys = RowKeys.read(path)
    mask = pc.is_in(keys.ids, value_set=pa.array(sorted(row_ids), keys.ids.type))
    return dict(zip(keys.ids.filter(mask).to_pylist(), keys.contents.filter(mask).to_pylist(), strict=True))
