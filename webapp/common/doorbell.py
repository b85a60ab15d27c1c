"""The doorbell of work that waits in the database: a message with an id, which may be lost or come twice."""

import logging
from typing import Any
from uuid import UUID

from celery import Task
from kombu.exceptions import OperationalError

logger = logging.getLogger(__name__)


def ring(task: "Task[Any, Any]", *waiting: UUID, what: str) -> bool:
    """Ask a worker to look. False when the broker is away: the scheduler rings again, from the database."""
    try:
        task.apply_async(tuple(map(str, waiting)), retry=False)
    except OperationalError as error:
        logger.warning("%s %s waits for the scheduler: %s", what, waiting[0], error)
        return False
    return True
