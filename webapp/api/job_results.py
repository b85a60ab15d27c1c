"""The table of a finished job: a file with what was measured at each step."""

import csv
import io
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from django.db import IntegrityError, transaction

from webapp.api.file_store import store_output
from webapp.api.models import JobResult
from webapp.api.names import FILE, wire_id
from webapp.jobs.history import all_steps, evaluations
from webapp.jobs.models import Job, JobStatus

PURPOSE = "fine-tune-results"
COLUMNS = ("step", "train_loss", "train_accuracy", "valid_loss", "valid_mean_token_accuracy")


def result_files(job: Job) -> list[str]:
    """Ids of the result files; they are written when somebody first asks for a job that succeeded."""
    if job.status != JobStatus.SUCCEEDED:
        return []
    found: JobResult | None = getattr(job, "result", None) or _write(job)
    return [wire_id(FILE, found.file_id)] if found and found.file_id else []


def _write(job: Job) -> JobResult | None:
    """One file a job, also when two ask at once; one that was deleted is not written again."""
    with suppress(IntegrityError), transaction.atomic():
        result = JobResult.objects.create(job=job)
        name = f"step_metrics_{job.pk.hex[:12]}.csv"
        result.file = store_output(
            team=job.team, user=job.created_by, purpose=PURPOSE, filename=name, chunks=[table_of(job)]
        )
        result.save(update_fields=["file"])
    return JobResult.objects.filter(job=job).first()


def table_of(job: Job) -> bytes:
    """A line for each step that was made or measured. Steps of a trainer that told no accuracy have none."""
    lines: dict[int, dict[str, Any]] = {}
    for one in all_steps(job):
        made = {"train_loss": one["loss"], "train_accuracy": one.get("accuracy")}
        lines.setdefault(one["step"], {}).update(made)
    for one in evaluations(job):
        measured = {"valid_loss": one["loss"], "valid_mean_token_accuracy": one["accuracy"]}
        lines.setdefault(one["step"], {}).update(measured)
    return "".join(_lines(lines)).encode()


def _lines(lines: dict[int, dict[str, Any]]) -> Iterator[str]:
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    table.writeheader()
    table.writerows({"step": step} | lines[step] for step in sorted(lines))
    yield text.getvalue()
