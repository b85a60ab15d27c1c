"""What people ask for: submit a job, ask for its end, try again, delete it."""

import json
import shutil
from typing import Any, TypedDict, Unpack
from uuid import UUID

from django.db import IntegrityError, transaction

from trainer.spec import TrainSpec
from webapp.accounts.audit import record
from webapp.accounts.models import Team, User
from webapp.adapters.models import BaseModel
from webapp.common.errors import UserError
from webapp.datasets.models import DatasetVersion
from webapp.jobs import lifecycle
from webapp.jobs.doorbell import ring
from webapp.jobs.models import ENDED, Job, JobStatus
from webapp.jobs.naming import free_name


class More(TypedDict, total=False):
    """What a job may have besides."""

    validation_version: DatasetVersion | None  # its rows are the held-out ones
    metadata: dict[str, str]


def submit_job(
    *,
    user: User,
    name: str,
    base_model: BaseModel,
    dataset_version: DatasetVersion,
    spec: TrainSpec,
    form_key: UUID,
    **more: Unpack[More],
) -> Job:
    """Queue a job of the dataset's team and ring the doorbell. The same `form_key` gives the job of the first time.

    Without a name it is called after its dataset. Files that are still being checked are waited for.
    """
    if not base_model.is_ready:
        raise UserError("base_not_ready", name=base_model.name)
    for version in filter(None, (dataset_version, more.get("validation_version"))):
        if not (version.is_ready or version.is_pending):
            raise UserError("dataset_not_ready", status=version.status)
    asked = {"base_model": base_model, "dataset_version": dataset_version, "spec": _portable(spec)}
    asked |= {"is_named": bool(name)}
    name = name or free_name(dataset_version)
    return _create(user=user, team=dataset_version.team, name=name, form_key=form_key, **asked, **more)


def unfinished_twin(*, user: User, name: str, spec: TrainSpec, form_key: UUID, **files: Any) -> Job | None:
    """The person's unfinished job that another form made with the same answers: they went back and sent it again.

    Without a name any name is the same; a name of its own makes a job another one. `files` are its columns: base model
    and dataset versions.
    """
    same = Job.objects.unfinished().filter(created_by=user, **files)
    same = same.filter(name=name) if name else same
    plain = json.loads(json.dumps(_portable(spec)))  # as the database gives it back
    return next((job for job in same.exclude(form_key=form_key) if job.spec == plain), None)


def request_cancel(*, user: User, job: Job) -> None:
    """Cancel a queued job at once; ask the worker of a running one to. Raises UserError when it has ended."""
    with transaction.atomic():
        # In this order: what leaves the queue between the two is running, and what is running may go back to it.
        done = (
            lifecycle.cancel_queued(job.pk, str(user))
            or lifecycle.wish_cancel(job.pk, str(user))
            or lifecycle.cancel_queued(job.pk, str(user))
        )
        if done:
            record(actor=user, action="job.cancel", team=job.team, target=job.name)
    if not done:
        job.refresh_from_db()
        raise UserError("job_finished", ending=job.ending)


def pause_job(*, user: User, job: Job) -> None:
    """Hold a queued job; a running one checkpoints at its next step and is held then. Twice is once.

    Raises UserError when it has ended or is about to.
    """
    with transaction.atomic():
        if lifecycle.pause(job.pk, str(user)):
            record(actor=user, action="job.pause", team=job.team, target=job.name)
            return
    _require_unfinished(job)


def resume_job(*, user: User, job: Job) -> None:
    """Let a held job go on, from where it was. Twice is once. Raises UserError when it has ended or is about to."""
    with transaction.atomic():
        if lifecycle.resume(job.pk, str(user)):
            record(actor=user, action="job.resume", team=job.team, target=job.name)
            transaction.on_commit(ring)
            return
    _require_unfinished(job)


def _require_unfinished(job: Job) -> None:
    job.refresh_from_db()
    if job.has_ended:
        raise UserError("job_finished", ending=job.ending)
    if job.cancel_requested:
        raise UserError("job_cancelling")


def retry_job(*, user: User, job: Job, form_key: UUID) -> Job:
    """A new job that asks for the same, one for each `form_key`. Raises UserError unless the old one went wrong."""
    if job.status == JobStatus.SUCCEEDED:
        raise UserError("job_finished", ending=job.ending)
    if not job.has_ended:
        raise UserError("job_running", status=job.status)
    asked = {"base_model": job.base_model, "dataset_version": job.dataset_version, "spec": job.spec}
    asked |= {"validation_version": job.validation_version, "metadata": job.metadata, "is_named": job.is_named}
    return _create(user=user, team=job.team, name=job.name, form_key=form_key, **asked)


def delete_job(*, user: User, job: Job) -> None:
    """Remove an ended job with its log and what its attempts left. Its adapter stays: all that it needs is its own."""
    with transaction.atomic():
        gone, _ = Job.objects.filter(pk=job.pk, status__in=ENDED).delete()
        if not gone:
            raise UserError("job_running", status=job.status)
        record(actor=user, action="job.delete", team=job.team, target=job.name)
        transaction.on_commit(lambda: shutil.rmtree(job.folder, ignore_errors=True))


def _create(*, user: User, team: Team, name: str, form_key: UUID, **asked: Any) -> Job:
    try:
        with transaction.atomic():
            job = Job.objects.create(team=team, name=name, created_by=user, form_key=form_key, **asked)
            record(actor=user, action="job.submit", team=team, target=name)
            transaction.on_commit(ring)
    except IntegrityError:
        first = Job.objects.filter(form_key=form_key, team=team, created_by=user).first()
        if first is None:  # somebody else's key
            raise UserError("form_used") from None
        return first
    return job


def _portable(spec: TrainSpec) -> dict[str, Any]:
    """The spec without this machine's folders: which base and rows are meant is in the job's own columns."""
    plain = spec.to_dict()
    plain["model"] |= {"base": "", "revision": ""}
    plain["data"] |= {"path": "", "holdout_path": ""}
    return plain
