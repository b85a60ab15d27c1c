"""What became of the rows of one file in another: told by their ids and content hashes alone, without reading texts."""

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
from trainer.formats.publishing import aside, publish

ID_LENGTH = 16  # of an id without its running number
MOST_TOLD = 20_000  # changes of a kind; all are counted
CHANGES = "changes.json"
CELLS_AT_ONCE = 1000  # of the other columns, which may be far longer than all that is kept of them


@dataclass(frozen=True)
class Difference:
    """Positions of rows, from 0: in the older file, in the newer one, or both.

    moved: into another split alone. beside: with other values in the other columns of the upload, alone.
    """

    removed: list[int]
    added: list[int]
    edited: list[tuple[int, int]]
    moved: list[tuple[int, int]]
    beside: list[tuple[int, int]]

    @property
    def counts(self) -> dict[str, int]:
        counts = {"added": len(self.added), "removed": len(self.removed)}
        both = {"edited": len(self.edited), "moved": len(self.moved), "beside": len(self.beside)}
        return counts | both


def told_of(older: Path, newer: Path) -> dict[str, Any]:
    """The first MOST_TOLD changes of each kind, and how many of each there are."""
    found = compare(older, newer)
    return {"counts": found.counts} | {one.name: getattr(found, one.name)[:MOST_TOLD] for one in fields(Difference)}


def compare_files(older: Path, newer: Path, out: Path, emit: Emit) -> None:
    """Write `out`/changes.json for two rows.parquet; emit Finished then.

    Raises TrainerError(dataset_invalid) for a file that holds no canonical rows.
    """
    try:
        told = told_of(older, newer)
    except (FileNotFoundError, pa.ArrowInvalid, KeyError) as error:
        fix = "Give two rows.parquet that check or revise wrote."
        raise TrainerError("dataset_invalid", "One of the two files holds no canonical rows.", fix) from error
    with aside(out) as path:
        path.write_text(json.dumps(told))
        publish(path, out / CHANGES)
    emit(Finished(folder=str(out), facts=told["counts"]))


@dataclass(frozen=True)
class Keys:
    """What tells the rows of a file apart: a column each, in the order of the rows."""

    ids: pa.Array
    contents: pa.Array
    splits: pa.Array

    @classmethod
    def read(cls, path: Path) -> "Keys":
        """A file from before rows could be edited or split has fewer columns."""
        with pq.ParquetFile(path) as file:
            names = [name for name in ("id", "edited", "split") if name in file.schema_arrow.names]
            table = file.read(columns=names)
        ids = table["id"].combine_chunks()
        empty = pa.nulls(table.num_rows, pa.string())
        edited = table["edited"].combine_chunks() if "edited" in names else empty
        splits = table["split"].combine_chunks() if "split" in names else empty
        contents = pc.coalesce(edited, pc.utf8_slice_codeunits(ids, 0, ID_LENGTH))
        return cls(ids, contents, pc.fill_null(splits, ""))

    def take(self, places: pa.Array) -> "Keys":
        return Keys(*(column.take(places) for column in (self.ids, self.contents, self.splits)))


def _beside(path: Path) -> pa.Array:
    """Of the other columns of each row a hash; 0 where there are none."""
    with pq.ParquetFile(path) as file:
        if "extra" not in file.schema_arrow.names:
            return pa.array(np.zeros(file.metadata.num_rows, np.uint64))
        batches = file.iter_batches(CELLS_AT_ONCE, columns=["extra"], use_threads=False)
        found = [_hashes(batch.column(0)) for batch in batches]
    return pa.array(np.concatenate([np.zeros(0, np.uint64), *found]))


def _hashes(cells: pa.Array) -> NDArray[np.uint64]:
    told = cells.cast(pa.large_binary()).to_pylist()
    return np.fromiter((_hash(cell) if cell else 0 for cell in told), np.uint64, len(told))


def _hash(cell: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(cell, digest_size=8).digest(), "big")


def compare(older: Path, newer: Path) -> Difference:
    """Rows of one id are the same row. Of what is left over on both sides, rows that say the same are."""
    old, new = Keys.read(older), Keys.read(newer)
    found = pc.index_in(new.ids, value_set=old.ids)
    here, there = pc.indices_nonzero(found.is_valid()), found.drop_null()
    added = pc.indices_nonzero(found.is_null())
    removed = pc.indices_nonzero(pc.invert(pc.is_in(old.ids, value_set=new.ids)))
    before, after = old.take(there), new.take(here)
    same = pc.equal(before.contents, after.contents)
    moved = pc.and_(same, pc.not_equal(before.splits, after.splits))
    other = pc.not_equal(_beside(older).take(there), _beside(newer).take(here))
    beside = pc.and_(pc.and_(same, pc.invert(moved)), other)
    twins = _twins(old, new, removed, added)
    gone, come = {one for one, _ in twins}, {one for _, one in twins}
    return Difference(
        removed=[one for one in removed.to_pylist() if one not in gone],
        added=[one for one in added.to_pylist() if one not in come],
        edited=_pairs(there, here, pc.invert(same)),
        moved=_pairs(there, here, moved) + [(a, b) for a, b in twins if old.splits[a] != new.splits[b]],
        beside=_pairs(there, here, beside),
    )


def _pairs(there: pa.Array, here: pa.Array, mask: pa.Array) -> list[tuple[int, int]]:
    return list(zip(there.filter(mask).to_pylist(), here.filter(mask).to_pylist(), strict=True))


def _twins(old: Keys, new: Keys, removed: pa.Array, added: pa.Array) -> list[tuple[int, int]]:
    """Rows that seem removed and added and say the same: an edited row that came back by an upload."""
    left, right = old.contents.take(removed), new.contents.take(added)
    both = pc.is_in(right, value_set=left)
    if not pc.any(both).as_py():
        return []
    places: dict[str, list[int]] = {}
    for place, content in zip(reversed(removed.to_pylist()), reversed(left.to_pylist()), strict=True):
        places.setdefault(content, []).append(place)
    wanted = zip(added.filter(both).to_pylist(), right.filter(both).to_pylist(), strict=True)
    return [(places[content].pop(), place) for place, content in wanted if places[content]]


def content_ids(path: Path, row_ids: Collection[str]) -> dict[str, str]:
    """What these rows say, by their ids; rows that the file does not have are left out."""
    if not row_ids:
        return {}
    keys = Keys.read(path)
    mask = pc.is_in(keys.ids, value_set=pa.array(sorted(row_ids), keys.ids.type))
    return dict(zip(keys.ids.filter(mask).to_pylist(), keys.contents.filter(mask).to_pylist(), strict=True))
