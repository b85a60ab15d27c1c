"""What a new job asks of its base model in vain: told before it is queued, in the words of the trainer."""

from django.core.cache import cache

from trainer.lora_names import issues_in
from trainer.spec import Issue, LoraSpec
from webapp.adapters.base_parts import known_parts
from webapp.adapters.models import BaseModel
from webapp.adapters.tasks import ring_for_parts

RING_SECONDS = 600  # between two bells for one base model, whose parts may be such that nobody can find them


def layer_issues(base: BaseModel, lora: LoraSpec) -> list[Issue]:
    """Names and numbers of layers that the base model does not have.

    While its parts are not known they are rung for and nothing is said: the worker looks before it loads anything.
    """
    if parts := known_parts(base):
        return issues_in(parts, lora)
    rung = f"rung-for-parts:{base.pk}"
    if base.is_ready and cache.add(rung, 1, timeout=RING_SECONDS) and not ring_for_parts(base.pk):
        cache.delete(rung)
    return []
