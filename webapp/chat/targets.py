"""Who answers: a base model, adapters on it, or both side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from webapp.accounts.models import User
from webapp.adapters.models import Adapter, BaseModel
from webapp.chat.models import MAX_TARGETS, Conversation
from webapp.common.errors import UserError


@dataclass(frozen=True)
class Target:
    """One column: an adapter, or the base model alone."""

    adapter: Adapter | None
    label: str

    @property
    def hue(self) -> str:
        return f"hue-{self.adapter.hue}" if self.adapter else "hue-base"


@dataclass(frozen=True)
class Targets:
    """All columns, left to right: the base model first, then the adapters in their order."""

    base_model: BaseModel
    include_base: bool
    adapters: Sequence[Adapter]

    def columns(self) -> list[Target]:
        base = [Target(None, self.base_model.name)] if self.include_base else []
        return base + [Target(adapter, adapter.name) for adapter in self.adapters]

    def require_usable(self, user: User) -> None:
        """Raise UserError unless these can answer this user now."""
        count = len(self.columns())
        if count == 0:
            raise UserError("no_target")
        if count > MAX_TARGETS:
            raise UserError("too_many_targets", limit=MAX_TARGETS)
        if any(adapter.base_model_id != self.base_model.pk for adapter in self.adapters):
            raise UserError("mixed_bases")
        if not self.base_model.is_ready:
            raise UserError("base_not_ready", name=self.base_model.name)
        wanted = {adapter.pk for adapter in self.adapters}
        if Adapter.objects.visible_to(user).filter(pk__in=wanted).count() != len(wanted):
            raise UserError("target_gone")


def chosen_targets(conversation: Conversation, user: User) -> Targets:
    """Who answers next in a conversation, as far as the user may still use them."""
    ids = [str(pk) for pk in conversation.adapter_ids]
    found = {str(adapter.pk): adapter for adapter in Adapter.objects.visible_to(user).filter(pk__in=ids)}
    adapters = [found[pk] for pk in ids if pk in found]
    return Targets(conversation.base_model, conversation.include_base, adapters)
