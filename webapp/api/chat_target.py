"""Who answers a request of the API: a base model, or an adapter on it, as the key may use them."""

from typing import Any
from uuid import UUID

from trainer.rendering import Renderer
from webapp.accounts.models import Team, User
from webapp.adapters.models import Adapter
from webapp.api.fields import Fields
from webapp.api.names import Found, find_model, model_not_found
from webapp.api.wire import ApiError
from webapp.chat.prompts import renderer_of

LONGEST_NAME = 400


def find_target(user: User, team: Team, body: Fields) -> Found:
    """By `model`; an extra field `adapter` (its id, or its model name) chooses one on that base model."""
    found = find_model(user, team, body.text("model", most=LONGEST_NAME))
    if not body.has("adapter"):
        return found
    name = body.text("adapter", most=LONGEST_NAME)
    chosen = find_model(user, team, name) if name.startswith("ft:") else _by_id(user, name)
    if chosen.base.pk != found.base.pk:
        body.bad("adapter", f"must be an adapter of the base model {found.base.name}")
    return chosen


def _by_id(user: User, text: str) -> Found:
    try:
        pk = UUID(text)
    except ValueError:
        pk = None
    adapter = Adapter.objects.visible_to(user).select_related("base_model").filter(pk=pk).first() if pk else None
    if adapter is None:
        error = model_not_found(text)
        error.param = "adapter"
        raise error
    return Found(adapter.base_model, adapter)


def renderer_for(found: Found) -> Renderer:
    if not found.base.is_ready:
        text = f"The base model {found.base.name} is not ready yet."
        raise ApiError(503, text, param="model", code="model_not_ready", retry=True, retry_after=5)
    return renderer_of(found.base.folder)


def context_of(found: Found) -> int | None:
    length: Any = found.base.facts.get("context_length")
    return int(length) if length else None


def fingerprint_of(found: Found) -> str:
    """What answers drawn with the same seed hang on: base model and adapter."""
    weights = found.adapter.weights_sha256[:8] if found.adapter else "base"
    return f"fp_{found.base.pk.hex[:8]}_{weights}"
