"""What the API keeps beside the product's own objects: files that are no datasets, uploads in parts, given answers."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar
from uuid import uuid4

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone

from webapp.accounts.models import ApiKey, Team, User
from webapp.datasets.models import DatasetVersion
from webapp.jobs.models import Job


class ApiFileQuerySet(models.QuerySet["ApiFile"]):
    def visible_to(self, user: User) -> ApiFileQuerySet:
        return self.filter(team__memberships__user=user)

    def living(self) -> ApiFileQuerySet:
        """Not expired."""
        return self.filter(Q(expires_at=None) | Q(expires_at__gt=timezone.now()))


class ApiFile(models.Model):
    """A file that is no dataset: what a batch reads, what jobs and batches wrote, what somebody keeps here."""

    id = models.UUIDField(primary_key=True, default=uuid4, editable=False)
    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="api_files")
    purpose = models.CharField(max_length=40)
    filename = models.CharField(max_length=255)
    size = models.PositiveBigIntegerField()
    created_by = models.ForeignKey(User, null=True, on_delete=models.SET_NULL, related_name="+")
    created_at = models.DateTimeField(default=timezone.now, db_index=True)
    expires_at = models.DateTimeField(null=True, blank=True)

    objects = ApiFileQuerySet.as_manager()

    class Meta:
        ordering: ClassVar = ["-created_at"]

    def __str__(self) -> str:
        return self.filename

    @property
    def folder(self) -> Path:
        return Path(settings.FILES_DIR) / "api" / str(self.pk)

    @property
    def path(self) -> Path:
        return self.folder / "content"


class JobResult(models.Model):
    """The table of a job's measurements, as a file; without one when it was deleted."""

    job = models.OneToOneField(Job, on_delete=models.CASCADE, related_name="result")
    file = models.OneToOneField(ApiFile, null=True, on_delete=models.SET_NULL, related_name="+")

    def __str__(self) -> str:
        return f"results of {self.job}"


class VersionExpiry(models.Model):
    """When a dataset version that came as a file goes by itself."""

    version = models.OneToOneField(DatasetVersion, on_delete=models.CASCADE, related_name="expiry")
    expires_at = models.DateTimeField()

    def __str__(self) -> str:
        return f"{self.version} until {self.expires_at}"


class UploadStatus(models.TextChoices):
    PENDING = "pending"
    COMPLETING = "completing"  # one request puts the parts together; on the wire it is pending still
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


class PartedUploadQuerySet(models.QuerySet["PartedUpload"]):
    def visible_to(self, user: User) -> PartedUploadQuerySet:
        return self.filter(team__memberships__user=user)

    def open(self) -> PartedUploadQuerySet:
        return self.filter(status=UploadStatus.PENDING, expires_at__gt=timezone.now())


class PartedUpload(models.Model):
    """A file that arrives as parts over the API, each in any order."""

    id = models.UUIDField(primary_key=True, default=uuid4, editable=False)
    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="+")
    created_by = models.ForeignKey(User, null=True, on_delete=models.CASCADE, related_name="+")
    filename = models.CharField(max_length=255)
    purpose = models.CharField(max_length=40)
    size = models.PositiveBigIntegerField()  # bytes of all parts together, as announced
    status = models.CharField(max_length=10, choices=UploadStatus.choices, default=UploadStatus.PENDING)
    created_at = models.DateTimeField(default=timezone.now)
    expires_at = models.DateTimeField()
    file_seconds = models.PositiveIntegerField(null=True, blank=True)  # how long the file will stay
    file_id = models.UUIDField(null=True, blank=True)  # of what became of it

    objects = PartedUploadQuerySet.as_manager()

    def __str__(self) -> str:
        return self.filename

    @property
    def folder(self) -> Path:
        return Path(settings.FILES_DIR) / "api-parts" / str(self.pk)


class UploadPart(models.Model):
    """One part; `upload.folder` has its bytes under its id."""

    id = models.UUIDField(primary_key=True, default=uuid4, editable=False)
    upload = models.ForeignKey(PartedUpload, on_delete=models.CASCADE, related_name="parts")
    size = models.PositiveBigIntegerField()
    created_at = models.DateTimeField(default=timezone.now)

    def __str__(self) -> str:
        return f"{self.size} bytes of {self.upload}"

    @property
    def path(self) -> Path:
        return self.upload.folder / self.pk.hex


class KeptAnswer(models.Model):
    """The answer to a request that named itself by `Idempotency-Key`; without a status it is still being made."""

    key = models.ForeignKey(ApiKey, on_delete=models.CASCADE, related_name="+")
    name = models.CharField(max_length=255)
    fingerprint = models.CharField(max_length=64)  # of what was asked
    status = models.PositiveSmallIntegerField(null=True, blank=True)
    body = models.TextField(blank=True)
    created_at = models.DateTimeField(default=timezone.now, db_index=True)

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["key", "name"], name="one_answer_per_request")]

    def __str__(self) -> str:
        return self.name


class BatchStatus(models.TextChoices):
    VALIDATING = "validating"
    FAILED = "failed"  # nothing of the file could be run
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"
    COMPLETED = "completed"
    EXPIRED = "expired"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"


class BatchQuerySet(models.QuerySet["Batch"]):
    def visible_to(self, user: User) -> BatchQuerySet:
        return self.filter(team__memberships__user=user)


class Batch(models.Model):
    """A file of requests, answered when there is room beside those who wait at a screen."""

    id = models.UUIDField(primary_key=True, default=uuid4, editable=False)
    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="batches")
    created_by = models.ForeignKey(User, on_delete=models.CASCADE, related_name="+")
    endpoint = models.CharField(max_length=40)
    # Its id stays when the file goes: that may be as soon as the batch has ended.
    input_file = models.ForeignKey(ApiFile, on_delete=models.DO_NOTHING, db_constraint=False, related_name="read_by")
    output_file = models.ForeignKey(ApiFile, null=True, on_delete=models.SET_NULL, related_name="+")
    error_file = models.ForeignKey(ApiFile, null=True, on_delete=models.SET_NULL, related_name="+")
    status = models.CharField(max_length=12, choices=BatchStatus.choices, default=BatchStatus.VALIDATING)
    errors = models.JSONField(default=list)  # code, line, message, param
    metadata = models.JSONField(default=dict)
    output_seconds = models.PositiveIntegerField(null=True, blank=True)  # how long its result files will stay
    total = models.PositiveIntegerField(default=0)
    completed = models.PositiveIntegerField(default=0)
    failed = models.PositiveIntegerField(default=0)
    claim = models.CharField(max_length=32, blank=True)  # of the one worker that may write; empty: nobody's
    worker = models.CharField(max_length=200, blank=True)
    beat = models.PositiveIntegerField(default=0)
    attempts = models.PositiveSmallIntegerField(default=0)  # that were begun since the last answer
    starts = models.PositiveSmallIntegerField(default=0)  # attempts in all
    trouble = models.CharField(max_length=500, blank=True)  # what ended the newest one that broke
    created_at = models.DateTimeField(default=timezone.now, db_index=True)
    in_progress_at = models.DateTimeField(null=True)
    finalizing_at = models.DateTimeField(null=True)
    cancelling_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True)
    expires_at = models.DateTimeField()

    objects = BatchQuerySet.as_manager()

    class Meta:
        ordering: ClassVar = ["-created_at"]

    def __str__(self) -> str:
        return f"the batch {self.pk.hex[:12]}"

    @property
    def folder(self) -> Path:
        return Path(settings.RUNS_DIR) / "batches" / str(self.pk)
