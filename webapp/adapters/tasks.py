"""Doors of the default worker: fetch a base model, and ring again for those nobody fetches."""

import logging
from typing import Any
from uuid import UUID

from celery import shared_task
from django.conf import settings
from kombu.exceptions import OperationalError

from webapp.adapters import fetching
from webapp.adapters.models import BaseModel, BaseStatus
from webapp.adapters.reconciling import silence

logger = logging.getLogger(__name__)


@shared_task(name="adapters.fetch_base")
def fetch_base(base_id: str) -> None:
    fetching.fetch_base(UUID(base_id))


def ring(base_id: UUID, **options: Any) -> None:
    """The doorbell. A broker that is away loses it; the reconciler rings again from the database."""
    try:
        fetch_base.apply_async((str(base_id),), retry=False, **options)
    except OperationalError as error:
        logger.warning("base model %s waits for the reconciler: %s", base_id, error)


def requeue_fetches() -> int:
    """Give back what a lost worker held, and ring for every waiting fetch; old rings expire and never pile up."""
    silence.interrupt_lost(lease=settings.LEASE_SECONDS)
    waiting = BaseModel.objects.filter(status=BaseStatus.FETCHING, fetch_runs=False).values_list("pk", flat=True)
    for base_id in waiting:
        ring(base_id, expires=max(settings.RECONCILE_SECONDS, 1.0))
    return len(waiting)
