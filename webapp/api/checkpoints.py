"""Checkpoints of a job: the adapter it came to, and the weights that were kept on the way."""

from typing import Any

from webapp.adapters.models import Adapter
from webapp.api.names import CHECKPOINT, FOR_NAMES, JOB, adapter_name, wire_id
from webapp.api.wire import timestamp
from webapp.jobs.history import all_steps, evaluations
from webapp.jobs.models import Job


def checkpoints_of(job: Job) -> list[dict[str, Any]]:
    """Of the furthest step first; none before the job has succeeded."""
    if job.adapter is None:
        return []
    kept = [job.adapter, *job.adapter.checkpoints.select_related(*FOR_NAMES)]
    made = {one["step"]: one for one in all_steps(job)}
    measured = {one["step"]: one for one in evaluations(job)}
    found = [_checkpoint(job, one, made, measured) for one in kept]
    return sorted(found, key=lambda one: -one["step_number"])


def step_of(adapter: Adapter) -> int:
    """The step whose weights it has."""
    return int(adapter.step if adapter.step is not None else adapter.metrics.get("published_step") or 0)


def _checkpoint(
    job: Job, adapter: Adapter, made: dict[int, dict[str, Any]], measured: dict[int, dict[str, Any]]
) -> dict[str, Any]:
    step = step_of(adapter)
    said = made.get(step, {})
    metrics = {"step": step, "train_loss": said.get("loss"), "train_mean_token_accuracy": said.get("accuracy")}
    if scores := measured.get(step):
        for prefix in ("", "full_"):
            metrics |= {
                f"{prefix}valid_loss": scores["loss"],
                f"{prefix}valid_mean_token_accuracy": scores["accuracy"],
            }
    return {
        "id": wire_id(CHECKPOINT, adapter.pk),
        "object": "fine_tuning.job.checkpoint",
        "created_at": timestamp(adapter.created_at),
        "fine_tuned_model_checkpoint": adapter_name(adapter),
        "fine_tuning_job_id": wire_id(JOB, job.pk),
        "step_number": step,
        "metrics": {name: value for name, value in metrics.items() if value is not None},
    }
