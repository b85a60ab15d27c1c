"""The doorbell of the gpu workers: a message without content. It may be lost or rung twice; the queue is a table."""

import logging

from celery import current_app
from kombu.exceptions import OperationalError

logger = logging.getLogger(__name__)


def ring() -> bool:
    """Tell a free worker to look at the queue. False when the broker is away: the reconciler rings again."""
    try:
        current_app.send_task("jobs.work", retry=False)
    except OperationalError as error:
        logger.warning("the doorbell is out of order: %s", error)
        return False
    return True
