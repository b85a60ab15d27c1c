"""Fine-tuning jobs as the wire shows them."""

from datetime import timedelta
from typing import Any
from uuid import UUID

from django.utils import timezone

from webapp.api.job_results import result_files
from webapp.api.jobs_method import described, hyperparameters_of
from webapp.api.names import FILE, FOR_NAMES, JOB, adapter_name, slug_of, wire_id
from webapp.api.wire import timestamp, timestamp_or_none
from webapp.jobs.files import refused_version
from webapp.jobs.models import FailureReason, Job, JobQuerySet, JobStatus

RELATED = ("team", "base_model", "dataset_version__dataset", "validation_version__dataset", "result")


def with_related(rows: JobQuerySet) -> JobQuerySet:
    """All that `job_object` looks at, in one query."""
    return rows.select_related(*RELATED, "adapter", *(f"adapter__{name}" for name in FOR_NAMES))


def job_object(job: Job, names: dict[UUID, str]) -> dict[str, Any]:
    """`names` are the base models' on the wire. `paused`, `shown_status` and `spec` are ours beside the wire's."""
    spec, aside = job.train_spec, job.validation_version
    files = {
        "training_file": wire_id(FILE, job.dataset_version_id),
        "validation_file": wire_id(FILE, aside.pk) if aside else None,
        "result_files": result_files(job),
    }
    asked: dict[str, Any] = {
        "model": names.get(job.base_model_id, slug_of(job.base_model.name)),
        "method": described(spec),
        "hyperparameters": hyperparameters_of(spec),
        "seed": spec.optim.seed,
        "metadata": job.metadata or None,
        "integrations": [],
        "user_provided_suffix": job.name if job.is_named else None,
    }
    return {
        "id": wire_id(JOB, job.pk),
        "object": "fine_tuning.job",
        "organization_id": job.team.slug,
        **asked,
        **files,
        **_standing(job),
        "paused": job.paused,
        "shown_status": job.shown_status,
        "spec": job.spec,
    }


def _standing(job: Job) -> dict[str, Any]:
    return {
        "status": wire_status(job),
        "error": _error(job),
        "fine_tuned_model": adapter_name(job.adapter) if job.adapter else None,
        "trained_tokens": job.progress.get("trained_tokens") if job.has_ended else None,
        "created_at": timestamp(job.created_at),
        "finished_at": timestamp_or_none(job.ended_at),
        "estimated_finish": _estimated_finish(job),
    }


def wire_status(job: Job) -> str:
    """Ours, but for a job whose files are still being checked. There is no word for a held one: it is queued."""
    return "validating_files" if job.status == JobStatus.QUEUED and job.awaited_version else job.status


def _error(job: Job) -> dict[str, Any] | None:
    if job.status != JobStatus.FAILED:
        return None
    param = None
    if job.reason == FailureReason.DATASET_INVALID:
        refused = refused_version(job)
        param = "validation_file" if refused and refused == job.validation_version else "training_file"
    return {"code": job.reason, "message": f"{job.reason_text} {job.reason_fix}".strip(), "param": param}


def _estimated_finish(job: Job) -> int | None:
    left = job.progress.get("seconds_left")
    if job.status != JobStatus.RUNNING or job.paused or left is None:
        return None
    return timestamp(timezone.now() + timedelta(seconds=min(left, 10**8)))
