"""Door of the default worker: the clean-up, and the bell that asks for it."""

import logging

from celery import shared_task
from kombu.exceptions import OperationalError

from webapp.system.cleaning import clean_up

logger = logging.getLogger(__name__)


@shared_task(name="system.clean_up")
def clean() -> None:
    clean_up()


def ring() -> bool:
    """The doorbell. False when the broker is away: the scheduler rings again."""
    try:
        clean.apply_async(retry=False)
    except OperationalError as error:
        logger.warning("the clean-up waits for the broker: %s", error)
        return False
    return True
