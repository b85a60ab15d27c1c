"""Carries splits over from an earlier version of a dataset, so that held-out rows stay held out."""

from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from trainer.errors import TrainerError
from trainer.formats.canonical import COPY_MARK, content_id
from trainer.formats.findings import most_common
from trainer.formats.splitting import TRAIN, SplitCounts


class EarlierSplits:
    """Looks up the earlier split of each row, and counts rows that kept theirs and rows that are new.

    A row is known by its id; a further copy, or a row with edited content, by its content hash. Hashes are kept as
    integers because there can be millions.
    """

    def __init__(self, rows: Path) -> None:
        """Raises TrainerError(user_config)."""
        self.before: Counter[str] = Counter()
        self.kept: Counter[str] = Counter()
        self.taken_over = SplitCounts()
        self.new = 0
        self._by_id: dict[int, str | None] = {}  # ids without a copy number
        self._copies: dict[str, str | None] = {}
        self._by_content: dict[int, str | None] = {}  # copies, and rows whose content was edited
        self._edits: set[int] = set()  # edited contents that the file has not repeated yet
        try:
            with pq.ParquetFile(rows) as file:
                names = [name for name in ("id", "split", "edited") if name in file.schema_arrow.names]
                for batch in file.iter_batches(columns=names):
                    held = batch.to_pydict()
                    self._note(held["id"], held["split"], held.get("edited", []))
        except (OSError, ValueError, KeyError) as error:
            fix = "Give the rows.parquet of the version before."
            raise TrainerError("user_config", f"The splits in {rows.name} cannot be read.", fix) from error

    def _note(self, ids: list[str], parts: list[str | None], edited: list[str | None]) -> None:
        for place, (row_id, part) in enumerate(zip(ids, parts, strict=True)):
            if part is not None:
                self.before[part] += 1
            says = edited[place] if edited else None
            if says:
                self._edits.add(int(says, 16))
            if COPY_MARK in row_id:
                self._copies[row_id] = part
                says = says or content_id(row_id)
            else:
                self._by_id[int(row_id, 16)] = part
            if says and self._by_content.get(int(says, 16), TRAIN) in (None, TRAIN):
                self._by_content[int(says, 16)] = part

    def take(self, row_id: str) -> str | None:
        """The earlier split of a row of the file; None for a new row and for one that was in no split."""
        content = content_id(row_id)
        key = int(content, 16)
        if row_id in self._copies:
            part, known = self._copies[row_id], True
        elif key in self._by_id:
            part, known = self._by_id[key], row_id == content  # otherwise it is an additional copy
        elif key in self._by_content:
            part, known = self._by_content[key], key in self._edits
            self._edits.discard(key)
        else:
            part, known = None, False
            self.new += 1
        if known and part:
            self.kept[part] += 1
        self.taken_over.add(content, part)
        return part

    def report(self) -> dict[str, Any]:
        """Row counts: in each split now, in each split before and kept since, and new."""
        told = {"before": most_common(self.before), "kept": most_common(self.kept), "new": self.new}
        splits = most_common(self.taken_over.counts)
        return {"splits": splits, "overlap": self.taken_over.overlap, "splits_kept": told}
