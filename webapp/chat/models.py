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

    @property
    def is_active(self) -> bool:
        """Whether some answer is still awaited or written."""
        return any(completion.is_active for completion in self.completions.all())

    @property
    def has_failed(self) -> bool:
        return any(completion.status == CompletionStatus.FAILED for completion in self.completions.all())


class CompletionStatus(models.TextChoices):
    QUEUED = "queued"
    STREAMING = "streaming"
    FINISHED = "finished"
    STOPPED = "stopped"
    FAILED = "failed"


ACTIVE = (CompletionStatus.QUEUED, CompletionStatus.STREAMING)


class Completion(models.Model):
    """One target's answer to a turn. Without an adapter the base model answers.

    A completion that has ended never changes; asking again puts a new one in its place.
    """

    id = models.UUIDField(primary_key=True, default=uuid4, editable=False)
    turn = models.ForeignKey(Turn, on_delete=models.CASCADE, related_name="completions")
    place = models.PositiveSmallIntegerField()  # its column
    adapter = models.ForeignKey(Adapter, null=True, blank=True, on_delete=models.SET_NULL, related_name="+")
    is_base = models.BooleanField(default=False)  # tells the base model's answer from that of a deleted adapter
    label = models.CharField(max_length=120)  # the target's name when it answered
    status = models.CharField(max_length=10, choices=CompletionStatus.choices, default=CompletionStatus.QUEUED)
    text = models.TextField(blank=True)
    error = models.CharField(max_length=500, blank=True)
    # tokens, first_token_ms, tokens_per_second, finish
    numbers: models.JSONField[dict[str, Any]] = models.JSONField(default=dict)
    # Who writes it, and the sign of life: a counter that moves as long as that worker lives
    worker = models.CharField(max_length=200, blank=True)
    beat = models.PositiveIntegerField(default=0)

    class Meta:
        ordering: ClassVar = ["place"]
        constraints: ClassVar = [models.UniqueConstraint(fields=["turn", "place"], name="one_completion_per_place")]
        indexes: ClassVar = [
            # The reconciler asks for these every few seconds; all others are history.
            models.Index(fields=["status"], name="active_completions", condition=models.Q(status__in=ACTIVE))
        ]

    turn_id: UUID
    adapter_id: UUID | None

    def __str__(self) -> str:
        return f"{self.label}: {self.text[:40]}"

    @property
    def is_active(self) -> bool:
        return self.status in ACTIVE

    @property
    def hue(self) -> str:
        """The class of its colour: the adapter's own, grey for the base model and for an adapter that is gone."""
        return f"hue-{self.adapter.hue}" if self.adapter else "hue-base"

    @property
    def numbers_text(self) -> str:
        """What the column shows small and grey: how much, how fast, how soon."""
        tokens = self.numbers.get("tokens")
        if not tokens:
            return ""
        parts = [f"{tokens} token{'' if tokens == 1 else 's'}"]
        if speed := self.numbers.get("tokens_per_second"):
            parts.append(f"{speed:.1f} tok/s" if speed < 100 else f"{speed:.0f} tok/s")
        if first := self.numbers.get("first_token_ms"):
            parts.append(f"first after {first / 1000:.1f} s" if first >= 1000 else f"first after {first:.0f} ms")
        # A narrow column breaks between the parts and nowhere else.
        return "\u00a0· ".join(part.replace(" ", "\u00a0") for part in parts)

    @property
    def was_cut(self) -> bool:
        """Whether the answer ended because the allowed number of tokens was used up."""
        return bool(self.numbers.get("finish") == "length")


class Call(models.Model):
    """One request over the API: prompts that a worker answers outside of any conversation.

    It lives as long as somebody waits for it: the worker removes it at its end, and whoever hangs up removes it before.
    The answer itself is on the stream alone.
    """

    id = models.UUIDField(primary_key=True, default=uuid4, editable=False)
    base_model = models.ForeignKey(BaseModel, on_delete=models.CASCADE, related_name="+")
    adapter = models.ForeignKey(Adapter, null=True, blank=True, on_delete=models.CASCADE, related_name="+")
    prompts = models.JSONField()  # token ids, one list for each row of the batch
    options = models.JSONField(default=dict)  # the fields of an engine's request, but for the prompt and the adapter
    status = models.CharField(max_length=10, choices=CompletionStatus.choices, default=CompletionStatus.QUEUED)
    error = models.CharField(max_length=500, blank=True)
    worker = models.CharField(max_length=200, blank=True)
    beat = models.PositiveIntegerField(default=0)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering: ClassVar = ["created_at"]

    adapter_id: UUID | None

    def __str__(self) -> str:
        return f"{len(self.prompts)} prompts for {self.base_model_id}"

    @property
    def stream(self) -> str:
        return f"call:{self.pk}"
