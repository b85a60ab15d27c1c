"""The scheduler: looks every few seconds for what was lost or waits, in a process that nothing else keeps busy."""

import logging
import threading
import time
from typing import Protocol

from django.conf import settings
from django.db import InterfaceError, OperationalError, close_old_connections

from webapp.adapters.reconciling import Fetches
from webapp.api.batch_reconciling import Batches
from webapp.chat.reconciling import Answers
from webapp.datasets.reconciling import Inspections, Surveys
from webapp.jobs.reaper import Reaper
from webapp.system import tasks

logger = logging.getLogger(__name__)

CLEAN_UP_SECONDS = 3600.0


class Watcher(Protocol):
    def reconcile(self, now: float) -> None: ...


class CleanUp:
    """Rings for the clean-up at the start and once an hour."""

    def __init__(self) -> None:
        self._rung_at = float("-inf")

    def reconcile(self, now: float) -> None:
        if now - self._rung_at >= CLEAN_UP_SECONDS and tasks.ring():
            self._rung_at = now


def run(stopping: threading.Event) -> None:
    """Look at everything again and again until asked to stop. Several may run: conditional updates decide."""
    watchers: list[Watcher] = [Reaper(), Answers(), Inspections(), Surveys(), Fetches(), Batches(), CleanUp()]
    while not stopping.is_set():
        for watcher in watchers:
            look(watcher)
        (settings.DATA_DIR / "scheduler").touch()  # its age is the health check
        stopping.wait(settings.RECONCILE_SECONDS)


def look(watcher: Watcher) -> None:
    """One look. What goes wrong in it is logged, and neither the others nor the next look go without."""
    try:
        watcher.reconcile(time.monotonic())
    except (OperationalError, InterfaceError) as error:
        logger.warning("the database is away: %s", error)
    except Exception:
        logger.exception("%s failed", type(watcher).__name__)
    finally:
        close_old_connections()
