"""Doors of the chat worker: answer a turn, ring again for waiting ones, and notice that a worker has gone."""

import logging
import threading
from typing import Any
from uuid import UUID

from celery import Task, shared_task
from celery.signals import worker_ready, worker_shutting_down
from django.conf import settings
from kombu.exceptions import OperationalError

from webapp.chat import answering, engine_door, lifecycle, pulse
from webapp.chat.reconciling import silence

logger = logging.getLogger(__name__)


@shared_task(name="chat.answer", bind=True)
def answer(self: "Task[Any, Any]", turn_id: str) -> None:
    answering.answer(UUID(turn_id), worker=self.request.hostname or "")


@shared_task(name="chat.reconcile")
def reconcile() -> None:
    silence.fail_lost(lease=settings.LEASE_SECONDS)
    requeue_turns()


def ring(turn_id: UUID, **options: Any) -> None:
    """The doorbell. A broker that is away loses it; the reconciler rings again from the database."""
    try:
        answer.apply_async((str(turn_id),), retry_policy={"max_retries": 1, "interval_start": 0}, **options)
    except OperationalError as error:
        logger.warning("turn %s waits for the reconciler: %s", turn_id, error)


def requeue_turns() -> int:
    """Ring again for every turn that nobody has begun; an old ring expires so that they never pile up."""
    waiting = lifecycle.waiting_turns()
    for turn_id in waiting:
        ring(turn_id, expires=max(settings.RECONCILE_SECONDS, 1.0))
    return len(waiting)


@worker_ready.connect
def begin(sender: Any, **_: object) -> None:
    """A chat worker that starts ends what its earlier life left open, and loads torch before it is needed."""
    if any(queue.name == "chat" for queue in sender.task_consumer.queues):
        lifecycle.fail_of_worker(sender.hostname)
        threading.Thread(target=engine_door.trainer_engine, name="warm up", daemon=True).start()


@worker_shutting_down.connect
def end(**_: object) -> None:
    pulse.shutting_down.set()
