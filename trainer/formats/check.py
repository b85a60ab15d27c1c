"""Checks a raw file: canonical rows and a report of everything found, written whole or not at all."""

import errno
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any
from uuid import uuid4

from trainer.errors import TrainerError
from trainer.events import Emit, Finished, Log
from trainer.formats.canonical import RowWriter
from trainer.formats.detect import FIX_UNKNOWN, LOOK_AT, Family, best_family, other_family, unknown_fields
from trainer.formats.findings import Findings, Statistics, most_common
from trainer.formats.problems import BadFile, BadRow, Problem, kind_of
from trainer.formats.reading import Record, has_bom, read_records

LOOK_AT_BYTES = 8 * 1024 * 1024  # rows kept in memory to tell the format


@dataclass
class Outcome:
    """What one pass over the file came to. `stopped_at` is the line where reading had to end, 0 when it did not."""

    family: Family | None = None
    bad_rows: int = 0
    stopped_at: int = 0
    developer: int = 0
    findings: Findings = field(default_factory=Findings)
    statistics: Statistics = field(default_factory=Statistics)


def check_file(file: Path, out: Path, *, skip_bad_rows: bool, emit: Emit) -> None:
    """Write `out`/report.json, and `out`/rows.parquet when the file can be used; emit Finished then.

    A file with a bad row is used only with `skip_bad_rows`; a file that breaks off never. Raises
    TrainerError(dataset_invalid) for a file that cannot be used, after the report is written.
    """
    if not file.is_file():
        raise TrainerError("user_config", f"There is no file {file}.", "Give the path of a JSON or JSONL file.")
    out.mkdir(parents=True, exist_ok=True)
    aside = out / f".rows-{uuid4().hex}"
    try:
        with RowWriter(aside) as writer:
            outcome = _read_all(file, writer)
        report = _report(outcome, writer, repairs=_repairs(file, outcome))
        usable = writer.rows > 0 and not outcome.stopped_at and (skip_bad_rows or not outcome.bad_rows)
        if usable:
            _publish(aside, out / "rows.parquet")
        _write_report(report, out / "report.json")
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise TrainerError("disk_full", "The disk is full.", "Free some space and try again.") from error
        raise
    finally:
        aside.unlink(missing_ok=True)
    if not usable:
        raise _rejection(report)
    emit(Log(text=f"{report['format']}: {report['rows']:,} good rows, {report['bad_rows']:,} bad rows"))
    facts = {name: report[name] for name in ("format", "kind", "rows", "bad_rows", "content_hash")}
    emit(Finished(folder=str(out), facts=facts))


def _read_all(file: Path, writer: RowWriter) -> Outcome:
    outcome = Outcome()
    records = read_records(file)
    first: list[Record] = []
    try:
        # The rows looked at stay at hand even when reading breaks off among them.
        for record in _until_enough(records):
            first.append(record)
        outcome.family = _family_of(first)
        for record in chain(first, records):
            _take(record, outcome, writer)
    except BadFile as stop:
        if outcome.family is None and first and (family := best_family(_objects(first))):
            outcome.family = family
            for record in first:
                _take(record, outcome, writer)
        outcome.findings.add(stop.line, stop.found, stop.text)
        outcome.stopped_at = stop.line
    return outcome


def _until_enough(records: Iterator[Record]) -> Iterator[Record]:
    objects = size = 0
    for record in records:
        yield record
        objects += isinstance(record.value, dict)
        size += len(record.text)
        if objects >= LOOK_AT or size >= LOOK_AT_BYTES:
            return


def _objects(records: list[Record]) -> list[dict[str, Any]]:
    return [record.value for record in records if isinstance(record.value, dict)]


def _family_of(first: list[Record]) -> Family | None:
    rows = _objects(first)
    family = best_family(rows)
    if rows and family is None:
        seen = next(record for record in first if isinstance(record.value, dict))
        raise BadFile(seen.line, "format not recognised", FIX_UNKNOWN, text=seen.text, field=unknown_fields(seen.value))
    return family


def _take(record: Record, outcome: Outcome, writer: RowWriter) -> None:
    try:
        _add(record, outcome, writer)
    except BadRow as bad:
        outcome.bad_rows += 1
        outcome.findings.add(record.line, bad.found, record.text)


def _add(record: Record, outcome: Outcome, writer: RowWriter) -> None:
    row, family = record.value, outcome.family
    if record.found:
        raise _bad(record.found)
    if not isinstance(row, dict) or family is None:
        raise BadRow("", f"a row must be an object, not {kind_of(row)}", "Write the row as { … } with named fields.")
    if mixed := other_family(row, family):
        raise _bad(mixed)
    content = family.to_content(row)
    writer.add(record.line, content)
    outcome.statistics.add(content)
    _note_ignored(row, family, outcome)


def _bad(found: Problem) -> BadRow:
    return BadRow(found.field, found.problem, found.fix)


def _note_ignored(row: dict[str, Any], family: Family, outcome: Outcome) -> None:
    outcome.findings.ignore(row.keys() - family.FIELDS)
    for message in row.get("messages", ()) if "messages" in family.FIELDS else ():
        outcome.findings.ignore(message.keys() - family.MESSAGE_FIELDS, "messages.")
        outcome.developer += message["role"] == "developer"


def _repairs(file: Path, outcome: Outcome) -> list[str]:
    repairs = []
    if has_bom(file):
        repairs.append("The byte order mark at the start of the file was passed over.")
    if outcome.developer:
        repairs.append(f"{outcome.developer:,} developer messages are read as system messages.")
    return repairs


def _report(outcome: Outcome, writer: RowWriter, *, repairs: list[str]) -> dict[str, Any]:
    return {
        "format": outcome.family.NAME if outcome.family else "",
        "kind": outcome.family.KIND if outcome.family else "",
        "rows": writer.rows,
        "bad_rows": outcome.bad_rows,
        "stopped_at": outcome.stopped_at,
        "errors": outcome.findings.errors,
        "error_counts": most_common(outcome.findings.counts),
        "repairs": repairs,
        "ignored_fields": most_common(outcome.findings.ignored),
        "content_hash": writer.content_hash,
        "statistics": outcome.statistics.to_dict(duplicates=writer.duplicates),
    }


def _rejection(report: dict[str, Any]) -> TrainerError:
    first = report["errors"][0]
    where = f"line {first['line']}" + (f", {first['field']}" if first["field"] else "")
    if report["stopped_at"]:
        return TrainerError("dataset_invalid", f"The file cannot be read: {where}: {first['problem']}.", first["fix"])
    bad, good = report["bad_rows"], report["rows"]
    text = f"{bad:,} of {bad + good:,} rows cannot be used. The first: {where}: {first['problem']}."
    fix = f"{first['fix']} Or go on with the {good:,} good rows." if good else first["fix"]
    return TrainerError("dataset_invalid", text, fix)


def _write_report(report: dict[str, Any], final: Path) -> None:
    aside = final.with_name(f".report-{uuid4().hex}")
    try:
        aside.write_text(json.dumps(report, ensure_ascii=False, allow_nan=False))
        _publish(aside, final)
    finally:
        aside.unlink(missing_ok=True)


def _publish(aside: Path, final: Path) -> None:
    """Rename a finished file to its name, once its bytes are on disk."""
    with aside.open("rb") as file:
        os.fsync(file.fileno())
    aside.replace(final)
