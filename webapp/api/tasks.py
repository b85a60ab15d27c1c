"""Doors of the chat worker for batches, and the bell that asks for one."""

from typing import Any
from uuid import UUID

from celery import Task, shared_task
from celery.signals import worker_ready

from webapp.api import batch_lifecycle, batch_run
from webapp.common import doorbell


@shared_task(name="chat.run_batches", bind=True)
def run_batches(self: "Task[Any, Any]", batch_id: str) -> None:
    batch_run.run_batches(worker=self.request.hostname or "")


def ring(batch_id: UUID) -> bool:
    return doorbell.ring(run_batches, batch_id, what="batch")


@worker_ready.connect
def begin(sender: Any, **_: object) -> None:
    """A chat worker that starts hands back what its earlier life was running."""
    if any(queue.name == "chat" for queue in sender.task_consumer.queues):
        batch_lifecycle.release_of_worker(sender.hostname)
        for batch_id in batch_lifecycle.waiting()[:1]:
            ring(batch_id)
