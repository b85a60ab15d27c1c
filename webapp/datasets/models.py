"""Datasets by name, and their immutable versions."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar
from uuid import uuid4

from django.db import models
from django.utils import timezone

from trainer.formats.splitting import TRAIN
from webapp.accounts.models import Team, User
from webapp.common.storage import dataset_folder, upload_path


class DatasetQuerySet(models.QuerySet["Dataset"]):
    def visible_to(self, user: User) -> DatasetQuerySet:
        return self.filter(team__memberships__user=user)


class Dataset(models.Model):
    """An upload by name. What it holds is in its versions."""

    id = models.UUIDField(primary_key=True, default=uuid4, editable=False)
    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="datasets")
    name = models.CharField(max_length=120)
    created_by = models.ForeignKey(User, null=True, on_delete=models.SET_NULL, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    objects = DatasetQuerySet.as_manager()

    class Meta:
        ordering: ClassVar = ["-created_at"]

    def __str__(self) -> str:
        return self.name

    @property
    def newest(self) -> DatasetVersion | None:
        """A change that came to nothing leaves the version before in its place."""
        return self.versions.by_standing().first()

    @property
    def next_number(self) -> int:
        """Of the next version."""
        return int(self.versions.aggregate(newest=models.Max("number"))["newest"] or 0) + 1


class VersionStatus(models.TextChoices):
    UPLOADED = "uploaded"
    INSPECTING = "inspecting"
    READY = "ready"
    REJECTED = "rejected"


PENDING = (VersionStatus.UPLOADED, VersionStatus.INSPECTING)


class Origin(models.TextChoices):
    """How a version came to be."""

    UPLOAD = "upload"
    EDIT = "edit"  # rows of its parent removed, edited or added
    SPLIT = "split"  # its parent's rows divided into named parts
    RESTORE = "restore"  # its parent once more


REVISED = (Origin.EDIT, Origin.SPLIT)
FAILED_CHANGE = models.Q(status=VersionStatus.REJECTED, origin__in=REVISED)


class SurveyStatus(models.TextChoices):
    """Where the survey of a version is, which begins when the version is ready and keeps nobody from using it."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


class DatasetVersionQuerySet(models.QuerySet["DatasetVersion"]):
    def visible_to(self, user: User) -> DatasetVersionQuerySet:
        return self.filter(dataset__team__memberships__user=user)

    def pending(self) -> DatasetVersionQuerySet:
        return self.filter(status__in=PENDING)

    def ready(self) -> DatasetVersionQuerySet:
        return self.filter(status=VersionStatus.READY)

    def by_standing(self) -> DatasetVersionQuerySet:
        """The newest first, changes of another version that came to nothing last."""
        return self.order_by(models.Case(models.When(FAILED_CHANGE, then=1), default=0), "-number")


class DatasetVersion(models.Model):
    """One immutable state of a dataset. Its files lie in `folder`; only this row makes them visible."""

    id = models.UUIDField(primary_key=True, default=uuid4, editable=False)
    dataset = models.ForeignKey(Dataset, on_delete=models.CASCADE, related_name="versions")
    number = models.PositiveIntegerField()
    status = models.CharField(max_length=10, choices=VersionStatus.choices, default=VersionStatus.UPLOADED)
    original_name = models.CharField(max_length=255)
    original_sha256 = models.CharField(max_length=64)
    size = models.PositiveBigIntegerField()  # bytes of the upload
    skip_bad_rows = models.BooleanField(default=False)
    mapping = models.JSONField(default=dict, blank=True)  # how a person said to read it: {"kind", "fields"}
    # Where it came from when nobody uploaded it: {"hub", "revision", "only"}, or {"version"} of another dataset
    source = models.JSONField(default=dict, blank=True)
    content_hash = models.CharField(max_length=64, blank=True)  # sha256 of the canonical rows
    row_count = models.PositiveIntegerField(default=0)
    # What `python -m trainer check` wrote: format, errors (the first 100), error_counts, statistics;
    # `failure` (text, fix) in its place when it could not write anything
    report = models.JSONField(default=dict)
    inspection = models.PositiveIntegerField(default=0)  # number of the newest inspection; the fencing token
    heartbeat = models.PositiveBigIntegerField(default=0)  # counts up while that inspection's supervisor lives
    survey_status = models.CharField(max_length=10, choices=SurveyStatus.choices, default=SurveyStatus.WAITING)
    survey = models.PositiveIntegerField(default=0)  # number of the newest survey; its fencing token
    survey_heartbeat = models.PositiveBigIntegerField(default=0)  # counts up while that survey's supervisor lives
    survey_version = models.PositiveSmallIntegerField(default=0)  # of the code that made the survey
    # What `python -m trainer survey` wrote: rows, searchable, findings by kind, splits, roles; `failure` in its place
    survey_report = models.JSONField(default=dict, blank=True)
    origin = models.CharField(max_length=10, choices=Origin.choices, default=Origin.UPLOAD)
    # What it was made from; for an upload the version before it, known once it is ready
    parent = models.ForeignKey("self", null=True, blank=True, on_delete=models.SET_NULL, related_name="children")
    note = models.CharField(max_length=500, blank=True)
    changes = models.JSONField(default=dict, blank=True)  # rows added, removed, edited, moved against the parent
    created_by = models.ForeignKey(User, null=True, on_delete=models.SET_NULL, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    objects = DatasetVersionQuerySet.as_manager()

    class Meta:
        ordering: ClassVar = ["-number"]
        constraints: ClassVar = [models.UniqueConstraint(fields=["dataset", "number"], name="one_version_per_number")]

    def __str__(self) -> str:
        return f"{self.dataset.name} v{self.number}"

    @property
    def team(self) -> Team:
        return self.dataset.team

    @property
    def folder(self) -> Path:
        return dataset_folder(self.pk)

    def aside(self, work: str) -> Path:
        """Where a child writes, until its results are put in place."""
        return self.folder / f".tmp-{work}"

    @property
    def rows_path(self) -> Path:
        return self.folder / "rows.parquet"

    @property
    def survey_path(self) -> Path:
        return self.folder / "survey.sqlite"

    @property
    def is_surveyed(self) -> bool:
        """Whether its rows can be searched and filtered; they still can while a newer survey is on its way."""
        return "rows" in self.survey_report

    @property
    def original_path(self) -> Path:
        return self.folder / "original"

    @property
    def changes_path(self) -> Path:
        """What becomes of the parent's rows, of a version that was made by changing them."""
        return self.folder / "changes.json"

    @property
    def test_file(self) -> Path:
        """The file whose rows become a part of their own, of a version that was split by one."""
        return self.folder / "test-file"

    @property
    def splits(self) -> dict[str, int]:
        """Rows of each named part; empty when there are none."""
        found: dict[str, int] = self.report.get("splits") or {}
        return found

    @property
    def frozen_splits(self) -> dict[str, int]:
        """Those that training does not learn from."""
        return {name: rows for name, rows in self.splits.items() if name != TRAIN}

    @property
    def columns(self) -> list[str]:
        """The other columns of the upload that are kept beside its rows, the most filled first."""
        return list(self.report.get("statistics", {}).get("columns", {}))

    @property
    def download_name(self) -> str:
        """What the file of its rows is called where it is downloaded, whatever was uploaded."""
        return f"{Path(self.original_name).stem}.jsonl"

    @property
    def came_as(self) -> str:
        """By which versions of datasets that are called the same are told apart."""
        return f"{self.original_name[:40]}, {timezone.localtime(self.created_at):%-d %b %Y %H:%M}"

    @property
    def is_ready(self) -> bool:
        return self.status == VersionStatus.READY

    @property
    def kind(self) -> str:
        """What its rows are: chat, text, preference or labelled; chat in reports from before there were others."""
        return self.report.get("kind") or "chat"

    @property
    def is_pending(self) -> bool:
        """Whether its inspection is still to end."""
        return self.status in PENDING

    @property
    def is_failed_change(self) -> bool:
        """Whether it was to be a change of its parent, and came to nothing."""
        return self.status == VersionStatus.REJECTED and self.origin in REVISED

    @property
    def was_cut_short(self) -> bool:
        """Whether its inspection said nothing about its rows, so that another one may."""
        return self.status == VersionStatus.REJECTED and bool(self.report.get("failure", {}).get("again"))

    @property
    def is_unfetched(self) -> bool:
        """Whether it was to come from the hub and did not."""
        return self.status == VersionStatus.REJECTED and "hub" in self.source and not self.original_sha256

    @property
    def skippable_rows(self) -> int:
        """How many good rows a rejected file has to go on with; 0 when leaving the bad ones out does not help."""
        of_changes = self.origin in REVISED and "second_file" not in self.report
        if self.status != VersionStatus.REJECTED or self.report.get("stopped_at") or of_changes:
            return 0
        return int(self.report.get("rows", 0))


class UploadQuerySet(models.QuerySet["Upload"]):
    def visible_to(self, user: User) -> UploadQuerySet:
        """Nobody sees what another person is sending, not even in one team."""
        return self.filter(user=user)


class Upload(models.Model):
    """A file that arrives in parts. How much of it is here is the length of the file at `path`."""

    id = models.UUIDField(primary_key=True, default=uuid4, editable=False)
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="+")
    name = models.CharField(max_length=255)
    size = models.PositiveBigIntegerField()  # bytes, once it is whole
    fingerprint = models.CharField(max_length=100, blank=True)  # by which the browser knows the file again
    touched_at = models.DateTimeField(default=timezone.now)  # of the last part

    objects = UploadQuerySet.as_manager()

    class Meta:
        ordering: ClassVar = ["-touched_at"]

    def __str__(self) -> str:
        return self.name

    @property
    def path(self) -> Path:
        return upload_path(self.pk)


class RowMark(models.Model):
    """What a team thinks of a row. Rows keep their ids, so that marks follow them from version to version."""

    dataset = models.ForeignKey(Dataset, on_delete=models.CASCADE, related_name="row_marks")
    row_id = models.CharField(max_length=64)
    starred = models.BooleanField(default=False)
    rating = models.PositiveSmallIntegerField(null=True, blank=True)  # 1 to 5
    changed_by = models.ForeignKey(User, null=True, on_delete=models.SET_NULL, related_name="+")
    changed_at = models.DateTimeField(auto_now=True)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["dataset", "row_id"], name="one_mark_per_row"),
            models.CheckConstraint(condition=models.Q(rating=None) | models.Q(rating__range=(1, 5)), name="rating_1_5"),
        ]

    def __str__(self) -> str:
        return f"{self.row_id} of {self.dataset_id}"


class RowTag(models.Model):
    """A word that a team put on a row."""

    dataset = models.ForeignKey(Dataset, on_delete=models.CASCADE, related_name="row_tags")
    row_id = models.CharField(max_length=64)
    name = models.CharField(max_length=40)

    class Meta:
        ordering: ClassVar = ["name"]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["dataset", "name", "row_id"], name="one_tag_of_a_name_per_row")
        ]
        indexes: ClassVar = [models.Index(fields=["dataset", "row_id"], name="tags_of_a_row")]

    def __str__(self) -> str:
        return self.name


class DraftChangeQuerySet(models.QuerySet["DraftChange"]):
    def visible_to(self, user: User) -> DraftChangeQuerySet:
        """One's own, as long as one is in the team."""
        return self.filter(user=user, version__dataset__team__memberships__user=user)


class DraftChange(models.Model):
    """One change that a person means to make to a version, until all of theirs are saved as the next one.

    A draft is one person's, so that nobody's edits overwrite another's unseen; saving brings them together.
    """

    class Action(models.TextChoices):
        EDIT = "edit"
        REMOVE = "remove"
        ADD = "add"

    id = models.UUIDField(primary_key=True, default=uuid4, editable=False)
    version = models.ForeignKey(DatasetVersion, on_delete=models.CASCADE, related_name="draft_changes")
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="+")
    action = models.CharField(max_length=6, choices=Action.choices)
    row_id = models.CharField(max_length=40, blank=True)  # empty for an added row, and for many removed at once
    number = models.PositiveIntegerField(default=0)  # of that row in the version, from 1
    row_ids = models.JSONField(default=list, blank=True)  # of many removed at once
    shape = models.TextField(
        blank=True, default=""
    )  # the row from now on, as JSON; a JSONField would lose the order of keys
    count = models.PositiveIntegerField(default=1)  # rows it concerns
    label = models.CharField(max_length=200, blank=True)  # what a person knows it by
    created_at = models.DateTimeField(auto_now_add=True)

    objects = DraftChangeQuerySet.as_manager()

    class Meta:
        ordering: ClassVar = ["created_at", "pk"]
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["version", "user", "row_id"], condition=~models.Q(row_id=""), name="one_change_per_row"
            )
        ]

    def __str__(self) -> str:
        return f"{self.action} {self.row_id or self.count}"

    @property
    def team(self) -> Team:
        return self.version.team
