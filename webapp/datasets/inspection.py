"""One inspection of an uploaded file or of changed rows, from taking it to ready or rejected."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

from trainer.errors import EXIT_CODES
from trainer.formats import count_rows
from trainer.formats.sample import SAMPLE
from webapp.common.pulse import Pulse
from webapp.common.storage import link, sync_path, work_folder
from webapp.datasets import hub, lifecycle
from webapp.datasets.child import MEMORY_BYTES, Ending, run_check, run_revise
from webapp.datasets.lineage import made_from, ready_before, split_plans
from webapp.datasets.models import REVISED, DatasetVersion

logger = logging.getLogger(__name__)

MOST_INSPECTIONS = 3  # a file whose inspection was cut short this often is the cause itself


def inspect_version(version_id: UUID, inspection: int) -> None:
    """Carry through the inspection that was begun, and say what came of it."""
    version = DatasetVersion.objects.get(pk=version_id)
    if inspection > MOST_INSPECTIONS:
        lifecycle.reject(version_id, inspection, _no_fault("The inspection was interrupted too often."))
        return
    pulse = Pulse(lambda: lifecycle.beat(version_id, inspection))
    try:
        with work_folder(version.aside(f"inspection-{inspection}")) as out:
            if hub.is_to_fetch(version) and not hub.fetch(version, inspection, out, pulse):
                return
            ending = _revised(version, out, pulse) if version.origin in REVISED else _checked(version, out, pulse)
            if ending is not None:
                _conclude(version, inspection, ending=ending, out=out)
    except hub.NotFetched as error:
        lifecycle.reject(version_id, inspection, _failure(error.text, error.fix))


def _checked(version: DatasetVersion, out: Path, pulse: Callable[[], bool]) -> Ending | None:
    told, skip = _told(version, out), version.skip_bad_rows
    return run_check(version.original_path, out, skip_bad_rows=skip, still_ours=pulse, told=told)


def _revised(version: DatasetVersion, out: Path, pulse: Callable[[], bool]) -> Ending | None:
    """Its parent cannot go while this runs: see versions.delete_version."""
    parent = version.parent
    if parent is None:
        raise FileNotFoundError(f"{version} has no parent")
    test_file = version.test_file if version.test_file.is_file() else None
    skip = version.skip_bad_rows and test_file is not None
    files = (parent.rows_path, version.changes_path, out)
    return run_revise(*files, test_file=test_file, skip_bad_rows=skip, still_ours=pulse)


def _told(version: DatasetVersion, out: Path) -> list[str]:
    """What the child is told of the file: its name, what a person said of its columns, and which splits rows have."""
    told = [f"--name={version.original_name}"]
    if version.mapping:
        (out / "mapping.json").write_text(json.dumps(version.mapping), encoding="utf-8")
        told.append(f"--mapping={out / 'mapping.json'}")
    earlier = ready_before(version)
    if earlier and earlier.frozen_splits:
        link(earlier.rows_path, out / "earlier.parquet")  # by a name of our own: that version may be deleted meanwhile
        told.append(f"--splits-of={out / 'earlier.parquet'}")
    return told


def broken(mark: str) -> dict[str, Any]:
    """The report when our own code failed."""
    return _no_fault(f"The inspection failed on our side (error {mark}); the server's log has the cause.")


def _conclude(version: DatasetVersion, inspection: int, *, ending: Ending, out: Path) -> None:
    report = _report_in(out)
    rows, bad_lines = out / "rows.parquet", out / "bad.jsonl"
    if report and bad_lines.is_file() and bad_lines.stat().st_size:
        bad_lines.replace(version.folder / bad_lines.name)
    if (sample := out / SAMPLE).is_file():
        sample.replace(version.folder / SAMPLE)
    if ending.status == EXIT_CODES["finished"] and report and rows.is_file() and count_rows(rows) == report["rows"]:
        # Whichever inspection moves its files here, they are the same; only the row makes them visible.
        for file in (rows, out / "report.json"):
            file.replace(version.folder / file.name)
        sync_path(version.folder)
        told = report | {"split_plans": plans} if (plans := split_plans(version, report)) else report
        lifecycle.accept(version.pk, inspection, told, **made_from(version))
    elif ending.status == EXIT_CODES["dataset_invalid"] and report:
        lifecycle.reject(version.pk, inspection, report | _second_file(version, report))
    elif ending.was_killed and inspection < MOST_INSPECTIONS:
        logger.warning("inspection %s of %s %s: it is made again", inspection, version.pk, ending.cause)
        lifecycle.give_back(version.pk, inspection)
    else:
        logger.error("inspection of %s ended with %s: %s", version.pk, ending.status, ending.stderr)
        lifecycle.reject(version.pk, inspection, _unexpected(ending))


def _second_file(version: DatasetVersion, report: dict[str, Any]) -> dict[str, Any]:
    """The name of the file that the report is about, where that is not the version's own."""
    if "changes" in report or not version.test_file.is_file():
        return {}
    asked = json.loads(version.changes_path.read_text(encoding="utf-8"))
    return {"second_file": asked.get("file", "")}


def _report_in(out: Path) -> dict[str, Any] | None:
    try:
        report: dict[str, Any] = json.loads((out / "report.json").read_text())
    except (FileNotFoundError, ValueError):
        return None
    return report


def _unexpected(ending: Ending) -> dict[str, Any]:
    if ending.out_of_time:
        return _failure("Reading the file took too long.", "Split it into smaller files.")
    if ending.failed and ending.failed.code != "internal":
        return _failure(ending.failed.text, ending.failed.fix)
    if "MemoryError" in ending.stderr or "MemoryError" in (ending.failed.text if ending.failed else ""):
        limit = f"{MEMORY_BYTES // 1024**3} GB"
        return _failure(f"Reading the file took more than {limit} of memory.", "Split it into smaller files.")
    return _no_fault(f"The inspection {ending.cause}.")


def _no_fault(text: str) -> dict[str, Any]:
    """The report when the file had no part in it, as far as is known."""
    report = _failure(text, "The file is kept: inspect it again. If that ends so too, the server's log has more.")
    report["failure"]["again"] = True
    return report


def _failure(text: str, fix: str) -> dict[str, Any]:
    return {"rows": 0, "bad_rows": 0, "errors": [], "error_counts": {}, "failure": {"text": text, "fix": fix}}
