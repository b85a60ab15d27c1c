"""Conversations: turns of a question, and one completion per model that answers."""

from __future__ import annotations

from typing import Any, ClassVar
from uuid import UUID, uuid4

from django.db import models

from webapp.accounts.models import Team, User
from webapp.adapters.models import Adapter, BaseModel

MAX_TARGETS = 4


class ConversationQuerySet(models.QuerySet["Conversation"]):
    def visible_to(self, user: User) -> ConversationQuerySet:
        """A conversation is its author's own, as long as they are in its team."""
        return self.filter(created_by=user, team__memberships__user=user)


class Conversation(models.Model):
    """A sequence of turns on one base model, with the targets that answer next."""

    id = models.UUIDField(primary_key=True, default=uuid4, editable=False)
    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="conversations")
    created_by = models.ForeignKey(User, on_delete=models.CASCADE, related_name="conversations")
    base_model = models.ForeignKey(BaseModel, on_delete=models.CASCADE, related_name="+")
    title = models.CharField(max_length=120, blank=True)
    # Who answers next: the base model (True) and these adapters, in this order
    include_base = models.BooleanField(default=True)
    adapter_ids = models.JSONField(default=list)
    system_prompt = models.TextField(blank=True)
    sampling = models.JSONField(default=dict)  # temperature, top_p, max_tokens, seed
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    objects = ConversationQuerySet.as_manager()

    class Meta:
        ordering: ClassVar = ["-updated_at"]

    def __str__(self) -> str:
        return self.title or "New conversation"


class TurnQuerySet(models.QuerySet["Turn"]):
    def visible_to(self, user: User) -> TurnQuerySet:
        return self.filter(conversation__created_by=user, conversation__team__memberships__user=user)


class Turn(models.Model):
    """One question, and through its completions the answers to it."""

    id = models.UUIDField(primary_key=True, default=uuid4, editable=False)
    conversation = models.ForeignKey(Conversation, on_delete=models.CASCADE, related_name="turns")
    number = models.PositiveIntegerField()
    message = models.TextField()
    stop_requested = models.BooleanField(default=False)
    created_at = models.DateTimeField(auto_now_add=True)

    objects = TurnQuerySet.as_manager()

    class Meta:
        ordering: ClassVar = ["number"]
        constraints: ClassVar = [models.UniqueConstraint(fields=["conversation", "number"], name="one_turn_per_number")]

    def __str__(self) -> str:
        return self.message[:60]

    @property
    def stream(self) -> str:
        return f"turn:{self.pk}"


class CompletionStatus(models.TextChoices):
    QUEUED = "queued"
    STREAMING = "streaming"
    FINISHED = "finished"
    STOPPED = "stopped"
    FAILED = "failed"


class Completion(models.Model):
    """One target's answer to a turn. Without an adapter the base model answers."""

    id = models.UUIDField(primary_key=True, default=uuid4, editable=False)
    turn = models.ForeignKey(Turn, on_delete=models.CASCADE, related_name="completions")
    place = models.PositiveSmallIntegerField()  # its column
    adapter = models.ForeignKey(Adapter, null=True, blank=True, on_delete=models.SET_NULL, related_name="+")
    is_base = models.BooleanField(default=False)  # tells the base model's answer from that of a deleted adapter
    label = models.CharField(max_length=120)  # the target's name when it answered
    status = models.CharField(max_length=10, choices=CompletionStatus.choices, default=CompletionStatus.QUEUED)
    text = models.TextField(blank=True)
    error = models.CharField(max_length=500, blank=True)
    numbers: models.JSONField[dict[str, Any]] = models.JSONField(default=dict)  # tokens, first_token_ms, tokens_per_second

    class Meta:
        ordering: ClassVar = ["place"]
        constraints: ClassVar = [models.UniqueConstraint(fields=["turn", "place"], name="one_completion_per_place")]

    turn_id: UUID

    def __str__(self) -> str:
        return f"{self.label}: {self.text[:40]}"
