"""Doors of the default worker: fetch a base model, count tokens for one, and the bells that ask for it."""

import logging
from uuid import UUID, uuid4

from celery import shared_task
from celery.signals import worker_shutting_down
from django.db import DatabaseError

from webapp.adapters import fetching, lifecycle, token_counts
from webapp.common import doorbell

logger = logging.getLogger(__name__)


@shared_task(name="adapters.fetch_base")
def fetch_base(base_id: str) -> None:
    number = None if fetching.shutting_down.is_set() else lifecycle.begin(UUID(base_id))
    if number is not None:
        carry_through(UUID(base_id), number)


def carry_through(base_id: UUID, number: int) -> None:
    """Fetch; whatever goes wrong in our own code ends the fetch with a mark to look for in the log."""
    try:
        fetching.fetch_base(base_id, number)
    except DatabaseError:  # nothing can be written down now; once it stands still for a lease it is begun again
        raise
    except Exception:
        mark = uuid4().hex[:8]
        logger.exception("base model %s: the fetch failed (error %s)", base_id, mark)
        lifecycle.fail(base_id, number, fetching.broken(mark))


def ring(base_id: UUID) -> bool:
    return doorbell.ring(fetch_base, base_id, what="base model")


@shared_task(name="adapters.count_tokens")
def count_tokens(version_id: str, base_id: str) -> None:
    try:
        token_counts.count(UUID(version_id), UUID(base_id))
    except DatabaseError:  # as above; the page that waits rings again
        raise
    except Exception:
        mark = uuid4().hex[:8]
        logger.exception("tokens of %s on %s: the count failed (error %s)", version_id, base_id, mark)
        token_counts.keep_failure(UUID(version_id), UUID(base_id), token_counts.broken(mark))


def ring_for_tokens(version_id: UUID, base_id: UUID) -> bool:
    return doorbell.ring(count_tokens, version_id, base_id, what="token count of dataset version")


@worker_shutting_down.connect
def end(**_: object) -> None:
    fetching.shutting_down.set()
