"""Base models, the adapters trained on them, and the shares that let others use them."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar
from uuid import uuid4

from django.db import models
from django.db.models import Q
from django.urls import reverse

from webapp.accounts.models import Team, User
from webapp.common.storage import adapter_folder
from webapp.datasets.models import DatasetVersion

HUES = 8  # an adapter keeps one of eight colours everywhere


class BaseSource(models.TextChoices):
    DEMO = "demo"  # the model that ships as a Python package
    FOLDER = "folder"  # a folder of the machine, below an allowed root
    HUB = "hub"  # a hub id with a revision


class BaseStatus(models.TextChoices):
    FETCHING = "fetching"
    READY = "ready"
    FAILED = "failed"


class BaseModelQuerySet(models.QuerySet["BaseModel"]):
    def ready(self) -> BaseModelQuerySet:
        return self.filter(status=BaseStatus.READY)


class BaseModel(models.Model):
    """A pretrained model underneath; everyone on the server may use it, its owner adds it."""

    id = models.UUIDField(primary_key=True, default=uuid4, editable=False)
    name = models.CharField(max_length=120, unique=True)
    source = models.CharField(max_length=10, choices=BaseSource.choices)
    location = models.CharField(max_length=500, blank=True)  # folder, hub id, or package of the demo
    revision = models.CharField(max_length=80, blank=True)  # after fetching: the immutable one
    path = models.CharField(max_length=1000, blank=True)  # the folder it is loaded from, once ready
    status = models.CharField(max_length=10, choices=BaseStatus.choices, default=BaseStatus.FETCHING)
    fetched_bytes = models.PositiveBigIntegerField(default=0)
    total_bytes = models.PositiveBigIntegerField(default=0)
    status_text = models.CharField(max_length=500, blank=True)  # what is being fetched, or why it failed
    fetch = models.PositiveIntegerField(default=0)  # number of the newest fetch: what an older one reports is ignored
    fetch_runs = models.BooleanField(default=False)  # somebody has taken it
    heartbeat = models.PositiveBigIntegerField(default=0)  # counts up while that somebody lives
    # From `trainer.base_facts`: architecture, parameters, layers, hidden_size, vocab_size, context_length, license…
    facts = models.JSONField(default=dict)
    created_at = models.DateTimeField(auto_now_add=True)

    objects = BaseModelQuerySet.as_manager()

    class Meta:
        ordering: ClassVar = ["created_at"]

    def __str__(self) -> str:
        return self.name

    @property
    def is_ready(self) -> bool:
        return self.status == BaseStatus.READY

    @property
    def folder(self) -> Path:
        return Path(self.path)

    @property
    def task(self) -> str:
        """`causal`: it continues text; `seq2seq`: an encoder reads and a decoder writes."""
        return str(self.facts.get("task", "causal"))

    @property
    def is_fetching(self) -> bool:
        return self.status == BaseStatus.FETCHING


class AdapterQuerySet(models.QuerySet["Adapter"]):
    def visible_to(self, user: User) -> AdapterQuerySet:
        """Of the user's teams, shared with one of them, or shared with everyone on the server."""
        return self.filter(
            Q(team__memberships__user=user)
            | Q(shares__team__memberships__user=user)
            | Q(shares__isnull=False, shares__team__isnull=True)
        ).distinct()

    def finals(self) -> AdapterQuerySet:
        """What trainings came to, without the checkpoints on the way."""
        return self.filter(of=None)

    def listed_in(self, team: Team) -> AdapterQuerySet:
        """What a library shows: of another team's checkpoints those that were shared, for their adapter may not be."""
        return self.usable_in(team).filter(Q(of=None) | ~Q(team=team))

    def usable_in(self, team: Team) -> AdapterQuerySet:
        """The team's own, and those shared with it or with everyone on the server."""
        shared = Q(shares__team=team) | Q(shares__isnull=False, shares__team__isnull=True)
        return self.filter(Q(team=team) | shared).distinct()


class Adapter(models.Model):
    """Trained LoRA weights in PEFT's format, with all that is needed to use them.

    What a training came to, or a checkpoint `of` that: the weights as they were after a step on the way.
    """

    id = models.UUIDField(primary_key=True, default=uuid4, editable=False)
    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="adapters")
    name = models.CharField(max_length=120)
    base_model = models.ForeignKey(BaseModel, on_delete=models.PROTECT, related_name="adapters")
    dataset_version = models.ForeignKey(
        DatasetVersion, null=True, blank=True, on_delete=models.SET_NULL, related_name="adapters"
    )
    of = models.ForeignKey("self", null=True, blank=True, on_delete=models.CASCADE, related_name="checkpoints")
    step = models.PositiveIntegerField(null=True, blank=True)  # of a checkpoint
    hue = models.PositiveSmallIntegerField(default=0)
    size = models.PositiveBigIntegerField(default=0)  # bytes of the folder
    weights_sha256 = models.CharField(max_length=64)  # of adapter_model.safetensors
    spec = models.JSONField(default=dict)  # of one made elsewhere perhaps no more than its base and its `lora`
    metrics = models.JSONField(default=dict)
    imported_from = models.CharField(max_length=255, blank=True, default="")  # the file it came in; empty: trained here
    created_by = models.ForeignKey(User, null=True, on_delete=models.SET_NULL, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    objects = AdapterQuerySet.as_manager()

    class Meta:
        ordering: ClassVar = ["-created_at"]

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        return reverse("adapter", args=[self.pk])

    @property
    def folder(self) -> Path:
        return adapter_folder(self.pk)


class ShareQuerySet(models.QuerySet["Share"]):
    def visible_to(self, user: User) -> ShareQuerySet:
        """Of the adapters the user may see."""
        return self.filter(adapter__in=Adapter.objects.visible_to(user))


class Share(models.Model):
    """Lets another team use an adapter; without a team, everyone on the server."""

    id = models.UUIDField(primary_key=True, default=uuid4, editable=False)
    adapter = models.ForeignKey(Adapter, on_delete=models.CASCADE, related_name="shares")
    team = models.ForeignKey(Team, null=True, blank=True, on_delete=models.CASCADE, related_name="received_shares")
    created_by = models.ForeignKey(User, null=True, on_delete=models.SET_NULL, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    objects = ShareQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [  # two, as SQLite holds every NULL for different
            models.UniqueConstraint(fields=["adapter", "team"], name="one_share_per_team"),
            models.UniqueConstraint(fields=["adapter"], condition=Q(team=None), name="one_share_with_everyone"),
        ]

    def __str__(self) -> str:
        return f"{self.adapter} with {self.team or 'everyone'}"
