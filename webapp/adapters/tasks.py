"""Doors of the default worker: fetch a base model, find its parts, count tokens for it, and the bells for these."""

from uuid import UUID

from celery import shared_task
from celery.signals import worker_shutting_down

from webapp.adapters import fetching, lifecycle, token_counts
from webapp.adapters.base_parts import keep_parts
from webapp.adapters.models import BaseModel
from webapp.common import doorbell
from webapp.common.task_border import marked


@shared_task(name="adapters.fetch_base")
def fetch_base(base_id: str) -> None:
    number = None if fetching.shutting_down.is_set() else lifecycle.begin(UUID(base_id))
    if number is not None:
        carry_through(UUID(base_id), number)


def carry_through(base_id: UUID, number: int) -> None:
    with marked(f"fetch of base model {base_id}", lambda mark: lifecycle.fail(base_id, number, fetching.broken(mark))):
        if fetching.fetch_base(base_id, number):
            ring_for_parts(base_id)


def ring(base_id: UUID) -> bool:
    return doorbell.ring(fetch_base, base_id, what="base model")


@shared_task(name="adapters.find_parts")
def find_parts(base_id: str) -> None:
    """Whoever needs them and finds none goes without, or rings again: a failure is for the log alone."""
    with marked(f"search for the parts of base model {base_id}", lambda mark: None):
        for base in BaseModel.objects.ready().filter(pk=base_id):
            keep_parts(base)


def ring_for_parts(base_id: UUID) -> bool:
    return doorbell.ring(find_parts, base_id, what="parts of base model")


@shared_task(name="adapters.count_tokens")
def count_tokens(version_id: str, base_id: str) -> None:
    version, base = UUID(version_id), UUID(base_id)
    with marked(f"token count of {version} on {base}", token_counts.kept_counts(version, base).keep_fault):
        token_counts.count(version, base)


def ring_for_tokens(version_id: UUID, base_id: UUID) -> bool:
    return doorbell.ring(count_tokens, version_id, base_id, what="token count of dataset version")


@worker_shutting_down.connect
def end(**_: object) -> None:
    fetching.shutting_down.set()
