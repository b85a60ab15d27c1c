"""Makes the next state of canonical rows: some removed, edited, added, divided into splits; checked like an upload."""

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
from trainer.formats.finding_private import masked_shape, private_in
from trainer.formats.findings import Findings, Statistics, most_common
from trainer.formats.problems import BadRow
from trainer.formats.publishing import aside, publish, publish_report
from trainer.formats.row_writer import RowWriter
from trainer.formats.searching import Said
from trainer.formats.shapes import READERS, read_shape
from trainer.formats.splitting import NOT_DRAWN, TRAIN, Parts, SplitPlan, assign, likeness

NOWHERE = 0  # the line of a row that no file held
FIX = 'Use {"remove": [ids], "edit": {id: row}, "add": [rows], "splits": null, "mask": [kinds]}.'


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What becomes of the rows. Shapes are still as they were given.

    mask: kinds of private things that get a placeholder in all rows, see finding_private.
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
    """What the changes came to. `met`: the ids of the changes that there are."""

    kind: Kind
    findings: Findings = field(default_factory=Findings)
    statistics: Statistics = field(default_factory=Statistics)
    counts: Counter[str] = field(default_factory=Counter)
    bad_rows: int = 0
    met: set[str] = field(default_factory=set)
    parts: Parts = field(default_factory=Parts)


@dataclass(frozen=True)
class Given:
    """The rows that changes bring, read: edited ones by id, added ones, and those of a second file."""

    edited: dict[str, Content]
    added: list[Content]
    second: Path | None = None

    def second_rows(self) -> Iterator[Row]:
        return iter_rows(self.second) if self.second else iter(())


def revise_file(
    rows: Path, changes: Path, out: Path, *, test_file: Path | None, emit: Emit, skip_bad_rows: bool = False
) -> None:
    """Write `out`/rows.parquet and `out`/report.json: `rows` with these changes; emit Finished.

    Ids stay: an edited row keeps its own. `test_file` is any file that a check accepts, for the split method `file`;
    with `skip_bad_rows` its good rows alone are taken.
    Raises TrainerError(dataset_invalid) after the report is written when an edited or added row cannot be used, when
    a row to change is not there, or when no row is left.
    """
    if not rows.is_file():
        raise TrainerError("user_config", f"There is no file {rows}.", "Give the path of a rows.parquet.")
    asked, outcome = Changes.read(changes), Outcome(read_rows(rows, 0, 1)[0].kind)
    with TemporaryDirectory(dir=out) as folder:
        second = _checked(test_file, asked, Path(folder), skip_bad_rows=skip_bad_rows)
        given = _read_given(asked, outcome, second=second)
        with aside(out) as path:
            with RowWriter(path, taken=_ids_at_risk(rows, given)) as writer:
                _write_all(rows, asked, given, outcome, writer=writer)
            _note_missing(asked, outcome)
            report = _report(outcome, writer)
            if usable := writer.rows > 0 and not outcome.bad_rows:
                publish(path, out / "rows.parquet")
            publish_report(report, out)
    if not usable:
        raise _rejection(report)
    told = ", ".join(f"{number:,} {what}" for what, number in report["changes"].items() if number)
    emit(Log(text=f"{report['rows']:,} rows: {told or 'nothing changed'}"))
    emit(Finished(folder=str(out), facts={name: report[name] for name in ("kind", "rows", "content_hash", "changes")}))


def _checked(test_file: Path | None, asked: Changes, folder: Path, *, skip_bad_rows: bool) -> Path | None:
    """The rows of the second file. Its report and its bad lines are what is left when it cannot be used."""
    if (test_file is None) == (asked.splits is not None and asked.splits.method == "file"):
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


def _read_given(asked: Changes, outcome: Outcome, *, second: Path | None) -> Given:
    """The rows of the changes, each checked; findings name them by id, or by their number among the added."""
    edited = {
        one: content for one, shape in asked.edit.items() if (content := _read(shape, f"row {one}", NOWHERE, outcome))
    }
    added = [
        content
        for number, shape in enumerate(asked.add, 1)
        if (content := _read(shape, f"added row {number}", number, outcome))
    ]
    if second and (other := read_rows(second, 0, 1)[0].kind) != outcome.kind:
        text = f"The rows of the second file are {other}, those of the dataset {outcome.kind}."
        raise TrainerError("dataset_invalid", text, "Upload a file of the same kind of rows.")
    return Given(edited, added, second)


def _read(shape: Any, where: str, line: int, outcome: Outcome) -> Content | None:
    try:
        return read_shape(shape, outcome.kind)
    except BadRow as bad:
        outcome.bad_rows += 1
        outcome.findings.add(line, bad.found, f"{where}: {json.dumps(shape, ensure_ascii=False)}")
        return None


def _ids_at_risk(rows: Path, given: Given) -> set[str]:
    """Ids of old rows that a new one could get: those of rows that said once what the new one says."""
    new = {content.content_id for content in given.added} | {row.content_id for row in given.second_rows()}
    if not new:
        return set()
    with pq.ParquetFile(rows) as file:
        batches = file.iter_batches(columns=["id"])
        return {one for batch in batches for one in batch.column(0).to_pylist() if content_id(one) in new}


def _after(rows: Path, asked: Changes, given: Given) -> Iterator[tuple[Row, Content]]:
    """Every old row that stays, and what it says now."""
    for row in iter_rows(rows):
        if row.id not in asked.remove:
            edited = given.edited.get(row.id) or _masked(row, asked)
            yield row, replace(edited, extra=row.extra) if edited else row


def _masked(row: Row, asked: Changes) -> Content | None:
    """The row with placeholders, None where there is nothing to mask."""
    if not asked.mask or not (kinds := private_in(Said.of(row)).keys() & set(asked.mask)):
        return None
    for kind in sorted(kinds):
        row = replace(row, **masked_shape(row, kind))
    return read_shape(row.shape(), row.kind)


def _write_all(rows: Path, asked: Changes, given: Given, outcome: Outcome, *, writer: RowWriter) -> None:
    plan = asked.splits
    by_content = _assignment(rows, asked, given)
    repeated = {row.content_id for row in given.second_rows()} if plan and plan.drop_overlap else set()
    has_splits = plan is not None and plan.method != "none"
    for row, content in _after(rows, asked, given):
        is_free = row.split in (None, TRAIN) if plan is None else plan.gives_up(row.split)
        if is_free and content.content_id in repeated:
            outcome.counts["removed"] += 1
            outcome.met.add(row.id)
            continue
        split = _new_split(content, plan, by_content) if plan and is_free else row.split
        has_splits = has_splits or split is not None
        if row.id in asked.edit:
            outcome.met.add(row.id)
        outcome.counts["edited"] += content.content_id != row.content_id
        outcome.counts["moved"] += split != row.split
        _write(content, outcome, writer, line=row.line, row_id=row.id, split=split)
    outcome.counts["removed"] += _removed(rows, asked, outcome)
    for content in given.added:
        own = by_content.get(content.content_id, TRAIN) if has_splits else None
        _write(content, outcome, writer, line=NOWHERE, split=own)
    for row in given.second_rows():
        _write(row, outcome, writer, line=row.line, split=plan.name if plan else None)


def _assignment(rows: Path, asked: Changes, given: Given) -> dict[str, str]:
    """For each content that is in another part than the one to learn from, or goes there, which."""
    plan, frozen = asked.splits, _frozen(rows, asked, given)
    if plan is None or plan.method in NOT_DRAWN:
        return frozen
    after = (content for _, content in _after(rows, asked, given))
    every = ((one.content_id, likeness(one, plan)) for source in (after, given.added) for one in source)
    return frozen | assign(every, plan, frozen=frozen)


def _frozen(rows: Path, asked: Changes, given: Given) -> dict[str, str]:
    """What is in parts that stay, each content with its part."""
    plan, there = asked.splits, _parts_in(rows)
    if plan:
        plan.refuse_clash(there)
    if not there or not (plan or given.added):
        return {}
    found = {}
    for row, content in _after(rows, asked, given):
        if row.split and row.split != TRAIN and not (plan and plan.gives_up(row.split)):
            found[content.content_id] = row.split
    return found


def _parts_in(rows: Path) -> set[str]:
    """Names of the parts that rows are kept aside in; a file from before there were any has none."""
    with pq.ParquetFile(rows) as file:
        if "split" not in file.schema_arrow.names:
            return set()
        batches = file.iter_batches(columns=["split"])
        return {name for batch in batches for name in batch.column(0).unique().to_pylist()} - {None, TRAIN}


def _new_split(content: Content, plan: SplitPlan, by_content: dict[str, str]) -> str | None:
    """Of a row that is in no part that stays. A copy of one that is may have been learnt from: it goes on so."""
    if plan.method == "none":
        return None
    name = by_content.get(content.content_id, TRAIN)
    return name if name in plan.names else TRAIN


def _write(
    content: Content, outcome: Outcome, writer: RowWriter, *, line: int, row_id: str = "", split: str | None
) -> None:
    writer.add(line, content, row_id=row_id, split=split)
    outcome.statistics.add(content)
    outcome.parts.add(content.content_id, split)
    outcome.counts["added"] += not row_id


def _removed(rows: Path, asked: Changes, outcome: Outcome) -> int:
    """How many rows go. Whether each was there is told by its id alone."""
    if not asked.remove:
        return 0
    with pq.ParquetFile(rows) as file:
        batches = file.iter_batches(columns=["id"])
        gone = {one for batch in batches for one in batch.column(0).to_pylist() if one in asked.remove}
    outcome.met |= gone
    return len(gone)


def _note_missing(asked: Changes, outcome: Outcome) -> None:
    for one in sorted({*asked.remove, *asked.edit} - outcome.met):
        outcome.bad_rows += 1
        found = BadRow("", "there is no such row", "Look at the rows again: they may have changed.").found
        outcome.findings.add(NOWHERE, found, f"row {one}")


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
        "splits": most_common(outcome.parts.counts),
        "overlap": outcome.parts.overlap,
    }


def _rejection(report: dict[str, Any]) -> TrainerError:
    if not report["errors"]:
        return TrainerError("dataset_invalid", "No row is left.", "Keep at least one row.")
    first = report["errors"][0]
    return TrainerError("dataset_invalid", f"{first['text'][:80]}: {first['problem']}.", first["fix"])
