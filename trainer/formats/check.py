"""Checks a raw file: writes canonical rows and a report of all findings, completely or not at all."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

from trainer.errors import TrainerError
from trainer.events import Emit, Finished, Log, counted
from trainer.formats.columns import describe_columns
from trainer.formats.detect import FIX_UNKNOWN, SAMPLE_ROWS, Recognition, recognise, recognition_of, unknown_fields
from trainer.formats.earlier_splits import EarlierSplits
from trainer.formats.family import Family
from trainer.formats.findings import BadLines, most_common
from trainer.formats.problems import BadFile
from trainer.formats.progress import Progress
from trainer.formats.publishing import publish, publish_report, staging_path
from trainer.formats.reading import Reading, Record, open_records
from trainer.formats.row_writer import RowWriter
from trainer.formats.sample import SAMPLE, write_sample
from trainer.formats.sections import SECTION, read_sections, worth_sections
from trainer.formats.sieve import Sieve

SAMPLE_BYTES = 8 * 1024 * 1024  # rows kept in memory to detect the format
BAD_LINES = "bad.jsonl"
MAX_LISTED = 10  # errors, in the log of the check
SAMPLE_CANDIDATES = 20  # rows that the stored sample is chosen from


@dataclass(frozen=True, kw_only=True)
class Known:
    """What is known about a file before it is read.

    name: its original name. mapping: how to read its columns, instead of detecting the format. splits_of: the rows of
    an earlier version; rows that occur in both files keep their split.
    """

    name: str = ""
    mapping: Family | None = None
    splits_of: Path | None = None


NOTHING_KNOWN = Known()


@dataclass
class Outcome:
    """The result of one pass over the file. `stopped_at`: the line at which reading had to stop, 0 if it did not."""

    sieve: Sieve
    reading: Reading
    recognition: Recognition
    columns: list[dict[str, Any]]
    stopped_at: int = 0
    sample: list[dict[str, Any]] = field(default_factory=list)


def check_file(file: Path, out: Path, *, skip_bad_rows: bool, emit: Emit, known: Known = NOTHING_KNOWN) -> None:
    """Write `out`/report.json and bad.jsonl, and also `out`/rows.parquet and a Finished event if the file is usable.

    A file with bad rows is usable only with `skip_bad_rows`; a file that cannot be read to its end never is. Raises
    TrainerError(dataset_invalid) for an unusable file, after the report is written.
    """
    if not file.is_file():
        raise TrainerError("user_config", f"There is no file {file}.", "Give the path of a dataset file.")
    out.mkdir(parents=True, exist_ok=True)
    earlier = EarlierSplits(known.splits_of) if known.splits_of else None
    with staging_path(out) as rows, staging_path(out) as bad_lines:
        with RowWriter(rows, earlier=earlier) as writer, bad_lines.open("w", encoding="utf-8") as bad:
            sieve = Sieve(known.mapping, BadLines(bad), folder=out)
            with closing(sieve):
                reading = open_records(file, known.name or file.name, scratch=out)
                outcome = _read_all(reading, writer, sieve, Progress(emit))
        report = _report(outcome, writer) | (earlier.report() if earlier else {})
        usable = writer.rows > 0 and not outcome.stopped_at and (skip_bad_rows or not report["bad_rows"])
        if usable:
            publish(rows, out / "rows.parquet")
        publish(bad_lines, out / BAD_LINES)
        write_sample(outcome.sample, out / SAMPLE)
        publish_report(report, out)
    if not usable:
        _log_errors(report, out, emit)
        raise _rejection(report)
    found = [counted(report["rows"], "good row", "good rows"), counted(report["bad_rows"], "bad row", "bad rows")]
    emit(Log(text=f"{report['format']}: {', '.join(found)}"))
    facts = {name: report[name] for name in ("format", "kind", "rows", "bad_rows", "content_hash")}
    emit(Finished(folder=str(out), facts=facts))


def _read_all(reading: Reading, writer: RowWriter, sieve: Sieve, progress: Progress) -> Outcome:
    outcome = Outcome(sieve, reading, recognition_of(sieve.family), [])
    reading.records = progress.through(reading.records)
    first: list[Record] = []
    try:
        try:
            # The rows read so far are kept even if reading fails among them.
            for record in _sample(reading.records):
                first.append(record)
        finally:
            _inspect(first, outcome)
        if sieve.family is None and (rows := _objects(first)):
            seen = next(record for record in first if record.value is rows[0])
            raise BadFile(
                seen.line, "format not recognised", FIX_UNKNOWN, text=seen.text, field=unknown_fields(rows[0])
            )
        if sieve.gathering is None and outcome.recognition.family is sieve.family and worth_sections(reading):
            _keep_sections(_objects(first), outcome, writer, progress)
        else:
            for record in chain(first, reading.records):
                _keep(record, outcome, writer)
        for line, content in sieve.gathered():
            writer.add(line, content)
    except BadFile as stop:
        if not writer.rows and not sieve.bad_rows and sieve.family:
            for record in first:
                _keep(record, outcome, writer)
        sieve.stop(stop)
        outcome.stopped_at = stop.line
    return outcome


def _sample(records: Iterator[Record]) -> Iterator[Record]:
    objects = size = 0
    for record in records:
        yield record
        objects += isinstance(record.value, dict)
        size += len(record.text)
        if objects >= SAMPLE_ROWS or size >= SAMPLE_BYTES:
            return


def _inspect(first: list[Record], outcome: Outcome) -> None:
    """Detect columns and format from the first records."""
    rows = _objects(first)
    outcome.columns, outcome.sample = describe_columns(rows), rows[:SAMPLE_CANDIDATES]
    if outcome.sieve.family is None:
        outcome.recognition = recognise(rows)
        outcome.sieve.set_family(outcome.recognition.family)
    if inside := outcome.reading.inside:
        saw = f'The rows stand in the list "{inside[:40]}". {outcome.recognition.saw}'
        outcome.recognition = replace(outcome.recognition, saw=saw)


def _objects(records: list[Record]) -> list[dict[str, Any]]:
    return [record.value for record in records if isinstance(record.value, dict) and not record.found]


def _keep(record: Record, outcome: Outcome, writer: RowWriter) -> None:
    if content := outcome.sieve.take(record):
        writer.add(record.line, content)


def _keep_sections(first: list[dict[str, Any]], outcome: Outcome, writer: RowWriter, progress: Progress) -> None:
    """Read the whole file again in sections, including the `first` rows."""
    reading, sieve = outcome.reading, outcome.sieve
    reading.notes["separators"] = reading.notes["blank lines"] = lines = 0
    size = reading.path.stat().st_size
    for number, section in enumerate(read_sections(reading.path, first, start=reading.lines_from), 1):
        section.offset_lines(lines)
        for group in section.groups:
            writer.add_group(group)
        sieve.extend(section.sieve, lines_before=lines)
        for line, found, text in section.rejected:
            sieve.reject(line + lines, found, text)
        reading.notes.update(section.notes)
        lines += section.lines
        progress.tell(lines, done=min(number * SECTION, size), of=size)


def _repairs(outcome: Outcome) -> list[str]:
    repairs = list(outcome.reading.repairs)
    repairs += outcome.recognition.repairs
    return repairs + [
        f"{repair} ({count:,} row{'s' * (count > 1)})." for repair, count in outcome.sieve.repairs.items()
    ]


def _report(outcome: Outcome, writer: RowWriter) -> dict[str, Any]:
    sieve, family = outcome.sieve, outcome.sieve.family
    return {
        "container": outcome.reading.container,
        "format": family.name if family else "",
        "kind": family.kind if family else "",
        "sure": round(outcome.recognition.sure, 3),
        "saw": outcome.recognition.saw,
        "columns": outcome.columns,
        "needs_mapping": family is None and bool(outcome.columns),
        "mixed": sieve.findings.mixed,
        "rows": writer.rows,
        "bad_rows": sieve.bad_rows,
        "bad_lines_left_out": sieve.bad_lines.left_out,
        "stopped_at": outcome.stopped_at,
        "errors": sieve.findings.errors,
        "error_counts": most_common(sieve.findings.counts),
        "repairs": _repairs(outcome),
        "ignored_fields": most_common(sieve.findings.ignored),
        "content_hash": writer.content_hash,
        "statistics": sieve.statistics.to_dict(duplicates=writer.duplicates),
    }


def _log_errors(report: dict[str, Any], out: Path, emit: Emit) -> None:
    """Log the first errors, the number of each kind, and where the rest is: for people who run a check by hand."""
    listed = report["errors"][:MAX_LISTED]
    for error in listed:
        where = f"line {error['line']:,}" + (f", {error['field']}" if error["field"] else "")
        emit(Log(text=f"{where}: {error['problem']}. {error['fix']}", level="error"))
    kinds = "; ".join(f"{count:,} × {problem}" for problem, count in report["error_counts"].items())
    if sum(report["error_counts"].values()) > len(listed):
        emit(Log(text=f"All errors: {kinds}. Each with its line: {out / BAD_LINES}", level="error"))


def _rejection(report: dict[str, Any]) -> TrainerError:
    first = report["errors"][0]
    where = f"line {first['line']}" + (f", {first['field']}" if first["field"] else "")
    if report["stopped_at"]:
        return TrainerError("dataset_invalid", f"The file cannot be read: {where}: {first['problem']}.", first["fix"])
    bad, good = report["bad_rows"], report["rows"]
    text = f"{bad:,} of {bad + good:,} rows cannot be used. The first: {where}: {first['problem']}."
    fix = f"{first['fix']} Or go on with the {counted(good, 'good row', 'good rows')}." if good else first["fix"]
    return TrainerError("dataset_invalid", text, fix)
