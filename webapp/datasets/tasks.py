"""Doors of the default worker: inspect an upload, and ring again for those nobody has taken."""

import logging
from typing import Any
from uuid import UUID

from celery import shared_task
from django.conf import settings
from kombu.exceptions import OperationalError

from webapp.datasets.inspection import inspect_version
from webapp.datasets.models import DatasetVersion, VersionStatus
from webapp.datasets.reconciling import silence

logger = logging.getLogger(__name__)


@shared_task(name="datasets.inspect")
def inspect(version_id: str) -> None:
    inspect_version(UUID(version_id))


def ring(version_id: UUID, **options: Any) -> None:
    """The doorbell. A broker that is away loses it; the reconciler rings again from the database."""
    try:
        inspect.apply_async((str(version_id),), retry_policy={"max_retries": 1, "interval_start": 0}, **options)
    except OperationalError as error:
        logger.warning("dataset version %s waits for the reconciler: %s", version_id, error)


def requeue_inspections() -> int:
    """Give back what a lost worker held, and ring for every waiting upload; old rings expire and never pile up."""
    silence.interrupt_lost(lease=settings.LEASE_SECONDS)
    waiting = DatasetVersion.objects.filter(status=VersionStatus.UPLOADED).values_list("pk", flat=True)
    for version_id in waiting:
        ring(version_id, expires=max(settings.RECONCILE_SECONDS, 1.0))
    return len(waiting)
