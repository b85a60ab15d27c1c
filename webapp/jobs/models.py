"""Jobs, the attempts at them, what happened in them, and the workers that do them."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar
from uuid import UUID, uuid4

from django.db import models
from django.db.models import Count, OuterRef, Q, Subquery
from django.db.models.functions import Coalesce
from django.utils import timezone

from trainer.spec import TrainSpec
from webapp.accounts.models import Team, User
from webapp.adapters.models import Adapter, BaseModel
from webapp.common.storage import attempt_folder, job_folder
from webapp.datasets.models import DatasetVersion


class JobStatus(models.TextChoices):
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


ENDED = (JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED)


class FailureReason(models.TextChoices):
    """Why a job failed: what the trainer reports, and what only the supervisor can see."""

    USER_CONFIG = "user_config"
    DATASET_INVALID = "dataset_invalid"
    INPUT_CHANGED = "input_changed"
    OUT_OF_MEMORY = "out_of_memory"
    DIVERGED = "diverged"
    DISK_FULL = "disk_full"
    STALLED = "stalled"
    INTERRUPTED_TOO_OFTEN = "interrupted_too_often"
    INTERNAL = "internal"


class WorkerQuerySet(models.QuerySet["Worker"]):
    def live(self) -> WorkerQuerySet:
        return self.filter(stopped=False)

    def idle(self) -> WorkerQuerySet:
        """Without a running job."""
        busy = Attempt.objects.filter(ended_at=None, worker__isnull=False, job__status=JobStatus.RUNNING)
        return self.exclude(pk__in=busy.values("worker"))


class Worker(models.Model):
    """A machine process that takes jobs. `beat` counts up while it lives; readers watch it move, not the clock."""

    id = models.UUIDField(primary_key=True, default=uuid4, editable=False)
    name = models.CharField(max_length=200, unique=True)
    device = models.CharField(max_length=120, blank=True)  # such as "NVIDIA H200" or "CPU, 2 cores"
    memory_bytes = models.PositiveBigIntegerField(default=0)
    auto_dtype = models.CharField(max_length=10, default="bfloat16")  # what `model.dtype: auto` is there
    beat = models.PositiveBigIntegerField(default=0)
    seen_at = models.DateTimeField(auto_now=True)  # for people to read
    stopped = models.BooleanField(default=False)

    objects = WorkerQuerySet.as_manager()

    class Meta:
        ordering: ClassVar = ["name"]

    def __str__(self) -> str:
        return self.name


class JobQuerySet(models.QuerySet["Job"]):
    def visible_to(self, user: User) -> JobQuerySet:
        return self.filter(team__memberships__user=user)

    def unfinished(self) -> JobQuerySet:
        return self.exclude(status__in=ENDED)

    def claimable(self) -> JobQuerySet:
        """Queued, neither held nor to be cancelled, its files checked, and with its back-off behind it.

        The files are asked for in subqueries: a join would move every condition of an UPDATE into one, where
        PostgreSQL does not look at them again after waiting for another transaction's change of the row.
        """
        due = Q(not_before=None) | Q(not_before__lte=timezone.now())
        ready = DatasetVersion.objects.ready()
        checked = Q(dataset_version__in=ready) & (Q(validation_version=None) | Q(validation_version__in=ready))
        return self.filter(due, checked, status=JobStatus.QUEUED, cancel_requested=False, paused=False)

    def paused(self) -> JobQuerySet:
        """Held in the queue until somebody resumes them."""
        return self.filter(status=JobStatus.QUEUED, paused=True)

    def in_fair_order(self) -> JobQuerySet:
        """Teams with the fewest running jobs first, then the oldest."""
        running = self.model.objects.filter(team=OuterRef("team"), status=JobStatus.RUNNING).order_by().values("team")
        load = Coalesce(Subquery(running.annotate(n=Count("pk")).values("n")), 0)
        return self.annotate(team_load=load).order_by("team_load", "created_at", "pk")


class Job(models.Model):
    """One training request. Its status changes only in `lifecycle.py`, by conditional updates."""

    id = models.UUIDField(primary_key=True, default=uuid4, editable=False)
    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="jobs")
    name = models.CharField(max_length=120)
    is_named = models.BooleanField(default=True)  # by who asked for it; else after its dataset
    created_by = models.ForeignKey(User, null=True, on_delete=models.SET_NULL, related_name="+")
    base_model = models.ForeignKey(BaseModel, on_delete=models.PROTECT, related_name="jobs")
    dataset_version = models.ForeignKey(DatasetVersion, on_delete=models.PROTECT, related_name="jobs")
    # Its rows are the held-out ones, in place of a share of the dataset's
    validation_version = models.ForeignKey(
        DatasetVersion, null=True, blank=True, on_delete=models.PROTECT, related_name="jobs_measured"
    )
    spec = models.JSONField()  # TrainSpec.to_dict(); model.base and data.path are filled in when an attempt starts
    form_key = models.UUIDField(unique=True, default=uuid4, editable=False)  # one job per rendered form
    metadata = models.JSONField(default=dict, blank=True)  # texts by name, for scripts to find their jobs by

    status = models.CharField(max_length=10, choices=JobStatus.choices, default=JobStatus.QUEUED, db_index=True)
    cancel_requested = models.BooleanField(default=False)
    paused = models.BooleanField(default=False)  # held while queued; the wish for it while running
    reason = models.CharField(max_length=24, choices=FailureReason.choices, blank=True)
    reason_text = models.TextField(blank=True)
    reason_fix = models.TextField(blank=True)
    attempt_number = models.PositiveIntegerField(default=0)  # the newest attempt; the fencing token
    fruitless_attempts = models.PositiveIntegerField(default=0)  # interrupted in a row without a new checkpoint
    not_before = models.DateTimeField(null=True, blank=True)  # back-off after an interruption
    last_seq = models.PositiveBigIntegerField(default=0)  # number of the newest event

    # What the newest events said, for lists and first paint
    phase = models.CharField(max_length=12, blank=True)
    step = models.PositiveIntegerField(default=0)
    steps = models.PositiveIntegerField(default=0)
    progress = models.JSONField(default=dict)  # fields of the newest Progress event

    created_at = models.DateTimeField(auto_now_add=True)
    started_at = models.DateTimeField(null=True, blank=True)
    ended_at = models.DateTimeField(null=True, blank=True)
    adapter = models.OneToOneField(Adapter, null=True, blank=True, on_delete=models.SET_NULL, related_name="job")

    objects = JobQuerySet.as_manager()

    class Meta:
        ordering: ClassVar = ["-created_at"]

    def __str__(self) -> str:
        return self.name

    @property
    def train_spec(self) -> TrainSpec:
        return TrainSpec.from_dict(self.spec)

    @property
    def folder(self) -> Path:
        return job_folder(self.pk)

    @property
    def has_ended(self) -> bool:
        return self.status in ENDED

    @property
    def ending(self) -> str:
        """How it ended, as a sentence about it says that."""
        return "was cancelled" if self.status == JobStatus.CANCELLED else self.status

    @property
    def can_be_retried(self) -> bool:
        return self.status in (JobStatus.FAILED, JobStatus.CANCELLED)

    @property
    def needs_other_settings(self) -> bool:
        """Whether the same ones would fail again; what changed under a job (`input_changed`) is asked for afresh."""
        return self.reason in (FailureReason.USER_CONFIG, FailureReason.DATASET_INVALID)

    @property
    def shown_status(self) -> str:
        """The status, or that it is held, or about to be."""
        if self.status == JobStatus.RUNNING and self.cancel_requested:
            return "cancelling"
        if self.paused and not self.has_ended:
            return "pausing" if self.status == JobStatus.RUNNING else "paused"
        return self.status

    @property
    def shown_phase(self) -> str:
        """What a running attempt does, unless its end is on its way; else the status."""
        return self.phase if self.phase and self.shown_status == JobStatus.RUNNING else self.shown_status

    @property
    def awaited_version(self) -> DatasetVersion | None:
        """The file whose check it waits for."""
        files = (self.dataset_version, self.validation_version)
        return next((one for one in files if one is not None and one.is_pending), None)

    @property
    def seconds_taken(self) -> float | None:
        """From the first start to the end, waiting between attempts included."""
        return (self.ended_at - self.started_at).total_seconds() if self.started_at and self.ended_at else None

    @property
    def percent(self) -> int:
        return int(100 * self.step / self.steps) if self.steps else 0


class Attempt(models.Model):
    """One try at a job by one worker. `heartbeat` counts up while its supervisor lives."""

    job = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="attempts")
    number = models.PositiveIntegerField()
    worker = models.ForeignKey(Worker, null=True, on_delete=models.SET_NULL, related_name="attempts")
    heartbeat = models.PositiveBigIntegerField(default=0)
    seen_at = models.DateTimeField(default=timezone.now)  # of the newest heartbeat, for people to read
    checkpoint_step = models.PositiveIntegerField(default=0)
    checkpoint_folder = models.CharField(max_length=200, blank=True)  # below `folder`
    # succeeded, failed, cancelled, paused, interrupted, preempted, lost
    outcome = models.CharField(max_length=24, blank=True)
    started_at = models.DateTimeField(auto_now_add=True)
    ended_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering: ClassVar = ["number"]
        constraints: ClassVar = [models.UniqueConstraint(fields=["job", "number"], name="one_attempt_per_number")]

    job_id: UUID

    def __str__(self) -> str:
        return f"{self.job} a{self.number}"

    @property
    def folder(self) -> Path:
        return attempt_folder(self.job_id, self.number)


class JobEvent(models.Model):
    """Something that happened to a job, numbered per job without gaps. Written once.

    `kind` is a trainer event's kind, or `status` for a change of status (data: from, to, reason, actor).
    """

    job = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="events")
    seq = models.PositiveBigIntegerField()
    attempt_number = models.PositiveIntegerField(default=0)
    kind = models.CharField(max_length=12)
    data = models.JSONField(default=dict)
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering: ClassVar = ["seq"]
        constraints: ClassVar = [models.UniqueConstraint(fields=["job", "seq"], name="one_event_per_seq")]

    def __str__(self) -> str:
        return f"{self.job_id} #{self.seq} {self.kind}"

    job_id: UUID
