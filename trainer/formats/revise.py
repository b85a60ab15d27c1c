"""Derives the next version of canonical rows: removed, edited, added or split; checked like an upload."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow.parquet as pq

from trainer.errors import TrainerError
from trainer.events import Emit, Finished, Log
from trainer.formats.canonical import Content, Kind, Row, content_id, iter_rows, read_rows
from trainer.formats.check import BAD_LINES, check_file
from trainer.formats.finding_private import find_private, mask_row
from trainer.formats.findings import Findings, Statistics, most_common
from trainer.formats.problems import BadRow
from trainer.formats.publishing import publish, publish_report, staging_path
from trainer.formats.row_writer import RowWriter
from trainer.formats.searching import RowText
from trainer.formats.shapes import READERS, read_shape
from trainer.formats.splitting import NOT_RANDOM, TRAIN, SplitCounts, SplitPlan, assign, stratum

NO_LINE = 0  # for rows that were in no file
FIX = 'Use {"remove": [ids], "edit": {id: row}, "add": [rows], "splits": null, "mask": [kinds]}.'


@dataclass(frozen=True, kw_only=True)
class Changes:
    """The requested changes. Edited and added rows are not validated yet.

    mask: kinds of private data to be masked in all rows, see finding_private.
    """

    remove: frozenset[str] = frozenset()
    edit: dict[str, Any] = field(default_factory=dict)
    add: list[Any] = field(default_factory=list)
    splits: SplitPlan | None = None
    mask: tuple[str, ...] = ()

    @classmethod
    def read(cls, path: Path) -> "Changes":
        """Raises TrainerError(user_config)."""
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            remove, edit, add = data.get("remove", []), dict(data.get("edit", {})), list(data.get("add", []))
            plan = data.get("splits")
            splits, mask = plan and SplitPlan.from_dict(plan), tuple(data.get("mask", ()))
            return cls(remove=frozenset(map(str, remove)), edit=edit, add=add, splits=splits, mask=mask)
        except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
            raise TrainerError("user_config", f"The changes in {path.name} cannot be read.", FIX) from error


@dataclass
class Outcome:
    """The result of the changes. `found_ids`: ids in the changes that exist in the file."""

    kind: Kind
    findings: Findings = field(default_factory=Findings)
    statistics: Statistics = field(default_factory=Statistics)
    counts: Counter[str] = field(default_factory=Counter)
    bad_rows: int = 0
    found_ids: set[str] = field(default_factory=set)
    split_counts: SplitCounts = field(default_factory=SplitCounts)


@dataclass(frozen=True)
class NewRows:
    """Validated new content: edited rows by id, added rows, and the rows of a second file."""

    edited: dict[str, Content]
    added: list[Content]
    second: Path | None = None

    def second_rows(self) -> Iterator[Row]:
        return iter_rows(self.second) if self.second else iter(())


def revise_file(
    rows: Path, changes_file: Path, out: Path, *, test_file: Path | None, emit: Emit, skip_bad_rows: bool = False
) -> None:
    """Write `out`/rows.parquet and `out`/report.json, `rows` with these changes; emit Finished.

    An edited row keeps its id. `test_file` is any file that a check accepts, for the split method `file`; with
    `skip_bad_rows` only its good rows are used. Raises TrainerError(dataset_invalid), after writing the report, if an
    edited or added row is unusable, if a row to change does not exist, or if no row is left.
    """
    if not rows.is_file():
        raise TrainerError("user_config", f"There is no file {rows}.", "Give the path of a rows.parquet.")
    changes, outcome = Changes.read(changes_file), Outcome(read_rows(rows, 0, 1)[0].kind)
    with TemporaryDirectory(dir=out) as folder:
        second = _checked(test_file, changes, Path(folder), skip_bad_rows=skip_bad_rows)
        new = _read_new_rows(changes, outcome, second=second)
        with staging_path(out) as path:
            with RowWriter(path, taken=_ids_that_may_clash(rows, new)) as writer:
                _write_all(rows, changes, new, outcome, writer=writer)
            _note_missing(changes, outcome)
            report = _report(outcome, writer)
            if usable := writer.rows > 0 and not outcome.bad_rows:
                publish(path, out / "rows.parquet")
            publish_report(report, out)
    if not usable:
        raise _rejection(report)
    told = ", ".join(f"{number:,} {what}" for what, number in report["changes"].items() if number)
    emit(Log(text=f"{report['rows']:,} rows: {told or 'nothing changed'}"))
    emit(Finished(folder=str(out), facts={name: report[name] for name in ("kind", "rows", "content_hash", "changes")}))


def _checked(test_file: Path | None, changes: Changes, folder: Path, *, skip_bad_rows: bool) -> Path | None:
    """The rows of the second file. If it is unusable, its report and bad lines are published instead."""
    if (test_file is None) == (changes.splits is not None and changes.splits.method == "file"):
        raise TrainerError("user_config", "The split method file and a test file belong together.", FIX)
    if test_file is None:
        return None
    try:
        check_file(test_file, folder, skip_bad_rows=skip_bad_rows, emit=lambda event: None)
    except TrainerError:
        for name in ("report.json", BAD_LINES):
            if (folder / name).is_file():
                publish(folder / name, folder.parent / name)
        raise
    return folder / "rows.parquet"


def _read_new_rows(changes: Changes, outcome: Outcome, *, second: Path | None) -> NewRows:
    """The new rows, validated; findings name them by id, or by their number among the added rows."""
    edited = {
        one: content for one, shape in changes.edit.items() if (content := _read(shape, f"row {one}", NO_LINE, outcome))
    }
    added = [
        content
        for number, shape in enumerate(changes.add, 1)
        if (content := _read(shape, f"added row {number}", number, outcome))
    ]
    if second and (other := read_rows(second, 0, 1)[0].kind) != outcome.kind:
        text = f"The rows of the second file are {other}, those of the dataset {outcome.kind}."
        raise TrainerError("dataset_invalid", text, "Upload a file of the same kind of rows.")
    return NewRows(edited, added, second)


def _read(shape: Any, where: str, line: int, outcome: Outcome) -> Content | None:
    try:
        return read_shape(shape, outcome.kind)
    except BadRow as bad:
        outcome.bad_rows += 1
        outcome.findings.add(line, bad.found, f"{where}: {json.dumps(shape, ensure_ascii=False)}")
        return None


def _ids_that_may_clash(rows: Path, new: NewRows) -> set[str]:
    """Ids of existing rows that a new row might get: those whose first content equals the new row's."""
    contents = {content.content_id for content in new.added} | {row.content_id for row in new.second_rows()}
    if not contents:
        return set()
    with pq.ParquetFile(rows) as file:
        batches = file.iter_batches(columns=["id"])
        return {one for batch in batches for one in batch.column(0).to_pylist() if content_id(one) in contents}


def _rows_after(rows: Path, changes: Changes, new: NewRows) -> Iterator[tuple[Row, Content]]:
    """Every existing row that stays, with its new content."""
    for row in iter_rows(rows):
        if row.id not in changes.remove:
            edited = new.edited.get(row.id) or _masked(row, changes)
            yield row, replace(edited, extra=row.extra) if edited else row


def _masked(row: Row, changes: Changes) -> Content | None:
    """The row with placeholders; None if there is nothing to mask."""
    if not changes.mask or not (kinds := find_private(RowText.of(row)).keys() & set(changes.mask)):
        return None
    for kind in sorted(kinds):
        row = replace(row, **mask_row(row, kind))
    return read_shape(row.shape(), row.kind)


def _write_all(rows: Path, changes: Changes, new: NewRows, outcome: Outcome, *, writer: RowWriter) -> None:
    plan = changes.splits
    by_content = _assignment(rows, changes, new)
    repeated = {row.content_id for row in new.second_rows()} if plan and plan.drop_overlap else set()
    has_splits = plan is not None and plan.method != "none"
    for row, content in _rows_after(rows, changes, new):
        is_free = row.split in (None, TRAIN) if plan is None else plan.releases(row.split)
        if is_free and content.content_id in repeated:
            outcome.counts["removed"] += 1
            outcome.found_ids.add(row.id)
            continue
        split = _new_split(content, plan, by_content) if plan and is_free else row.split
        has_splits = has_splits or split is not None
        if row.id in changes.edit:
            outcome.found_ids.add(row.id)
        outcome.counts["edited"] += content.content_id != row.content_id
        outcome.counts["moved"] += split != row.split
        _write(content, outcome, writer, line=row.line, row_id=row.id, split=split)
    outcome.counts["removed"] += _removed(rows, changes, outcome)
    for content in new.added:
        own = by_content.get(content.content_id, TRAIN) if has_splits else None
        _write(content, outcome, writer, line=NO_LINE, split=own)
    for row in new.second_rows():
        _write(row, outcome, writer, line=row.line, split=plan.name if plan else None)


def _assignment(rows: Path, changes: Changes, new: NewRows) -> dict[str, str]:
    """The split of each content that is held out, or will be."""
    plan, frozen = changes.splits, _frozen(rows, changes, new)
    if plan is None or plan.method in NOT_RANDOM:
        return frozen
    after = (content for _, content in _rows_after(rows, changes, new))
    every = ((one.content_id, stratum(one, plan)) for source in (after, new.added) for one in source)
    return frozen | assign(every, plan, frozen=frozen)


def _frozen(rows: Path, changes: Changes, new: NewRows) -> dict[str, str]:
    """The contents of splits that stay, with their split."""
    plan, there = changes.splits, _splits_in(rows)
    if plan:
        plan.refuse_clash(there)
    if not there or not (plan or new.added):
        return {}
    found = {}
    for row, content in _rows_after(rows, changes, new):
        if row.split and row.split != TRAIN and not (plan and plan.releases(row.split)):
            found[content.content_id] = row.split
    return found


def _splits_in(rows: Path) -> set[str]:
    """The names of the held-out splits; files written before there were splits have none."""
    with pq.ParquetFile(rows) as file:
        if "split" not in file.schema_arrow.names:
            return set()
        batches = file.iter_batches(columns=["split"])
        return {name for batch in batches for name in batch.column(0).unique().to_pylist()} - {None, TRAIN}


def _new_split(content: Content, plan: SplitPlan, by_content: dict[str, str]) -> str | None:
    """The split of a free row. A copy of a held-out row goes to train, as it may have been trained on already."""
    if plan.method == "none":
        return None
    name = by_content.get(content.content_id, TRAIN)
    return name if name in plan.names else TRAIN


def _write(
    content: Content, outcome: Outcome, writer: RowWriter, *, line: int, row_id: str = "", split: str | None
) -> None:
    writer.add(line, content, row_id=row_id, split=split)
    outcome.statistics.add(content)
    outcome.split_counts.add(content.content_id, split)
    outcome.counts["added"] += not row_id


def _removed(rows: Path, changes: Changes, outcome: Outcome) -> int:
    """The number of removed rows, counted by id."""
    if not changes.remove:
        return 0
    with pq.ParquetFile(rows) as file:
        batches = file.iter_batches(columns=["id"])
        gone = {one for batch in batches for one in batch.column(0).to_pylist() if one in changes.remove}
    outcome.found_ids |= gone
    return len(gone)


def _note_missing(changes: Changes, outcome: Outcome) -> None:
    for one in sorted({*changes.remove, *changes.edit} - outcome.found_ids):
        outcome.bad_rows += 1
        found = BadRow("", "there is no such row", "Look at the rows again: they may have changed.").found
        outcome.findings.add(NO_LINE, found, f"row {one}")


def _report(outcome: Outcome, writer: RowWriter) -> dict[str, Any]:
    return {
        "format": READERS[outcome.kind].name,
        "kind": outcome.kind,
        "rows": writer.rows,
        "bad_rows": outcome.bad_rows,
        "stopped_at": 0,
        "errors": outcome.findings.errors,
        "error_counts": most_common(outcome.findings.counts),
        "repairs": [],
        "ignored_fields": {},
        "content_hash": writer.content_hash,
        "statistics": outcome.statistics.to_dict(duplicates=writer.duplicates),
        "changes": {name: outcome.counts[name] for name in ("added", "removed", "edited", "moved")},
        "splits": most_common(outcome.split_counts.counts),
        "overlap": outcome.split_counts.overlap,
    }


def _rejection(report: dict[str, Any]) -> TrainerError:
    if not report["errors"]:
        return TrainerError("dataset_invalid", "No row is left.", "Keep at least one row.")
    first = report["errors"][0]
    return TrainerError("dataset_invalid", f"{first['text'][:80]}: {first['problem']}.", first["fix"])
