"""The life of a gpu worker's process: its row, its beat, and the moment it is asked to go.

These are Celery's signals, the only way to hear of a worker's start and end; no Django signal is used. Going is a flag
because the task runs in another thread: its supervisor looks at it and hands the job back before the process ends.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from celery import signals
from django.conf import settings
from django.db import DatabaseError, close_old_connections
from django.db.models import F
from django.utils import timezone

from webapp.jobs.doorbell import ring
from webapp.jobs.machine import this_machine
from webapp.jobs.models import Worker

logger = logging.getLogger(__name__)

GPU_QUEUE = "gpu"
_going = threading.Event()
_identity = {"name": "worker"}  # of this process, once it has started


def is_going() -> bool:
    """Whether this process was asked to end."""
    return _going.is_set()


def this_worker() -> Worker:
    """The row of this process."""
    return Worker.objects.get_or_create(name=_identity["name"])[0]


def register(name: str) -> Worker:
    """Write down that this process takes jobs from now on, and on what machine."""
    machine = this_machine()
    facts = {**asdict(machine), "stopped": False}
    worker, _ = Worker.objects.update_or_create(name=name, defaults=facts)
    return worker


def beat(name: str) -> None:
    """One sign of life; a worker that was taken for dead stands up again."""
    Worker.objects.filter(name=name).update(beat=F("beat") + 1, stopped=False, seen_at=timezone.now())


def mark_stopped(name: str) -> None:
    Worker.objects.filter(name=name).update(stopped=True)


@signals.worker_ready.connect
def _on_ready(sender: Any, **_: Any) -> None:
    if GPU_QUEUE not in sender.app.amqp.queues.consume_from:
        return
    _identity["name"] = sender.hostname
    threading.Thread(target=_beat_until_gone, args=(sender.hostname,), daemon=True).start()


@signals.worker_shutting_down.connect
def _on_shutting_down(**_: Any) -> None:
    _going.set()


def _beat_until_gone(name: str) -> None:
    """Runs in a thread of its own: beats go on while the task's thread is busy."""
    registered = False
    while not is_going():
        if registered:
            _with_database(beat, name)
        elif _with_database(register, name):
            registered = True
            ring()  # jobs may have waited for a worker to come
        _going.wait(settings.HEARTBEAT_SECONDS)
    _with_database(mark_stopped, name)


def _with_database(write: Callable[[str], object], name: str) -> bool:
    try:
        write(name)
    except DatabaseError as error:
        logger.warning("worker %s: the database is away: %s", name, error)
        return False
    finally:
        close_old_connections()
    return True
