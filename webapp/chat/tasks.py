"""Doors of the chat worker: answer a turn, and the bell that asks for it."""

import threading
from typing import Any
from uuid import UUID

from celery import Task, shared_task
from celery.signals import worker_ready, worker_shutting_down

from webapp.chat import answering, call_answering, call_intake, call_lifecycle, engine_door, lifecycle, pulse
from webapp.common import doorbell


@shared_task(name="chat.answer", bind=True)
def answer(self: "Task[Any, Any]", turn_id: str) -> None:
    answering.answer(UUID(turn_id), worker=self.request.hostname or "")


@shared_task(name="chat.answer_call", bind=True)
def answer_call(self: "Task[Any, Any]", call_id: str) -> None:
    call_answering.answer_call(UUID(call_id), worker=self.request.hostname or "")


def ring_call(call_id: UUID) -> bool:
    """The second way to a worker, of the scheduler; the first is `call_intake.ring`."""
    return doorbell.ring(answer_call, call_id, what="call")


def ring(turn_id: UUID) -> bool:
    return doorbell.ring(answer, turn_id, what="turn")


@worker_ready.connect
def begin(sender: Any, **_: object) -> None:
    """A chat worker that starts ends what its earlier life left open, and loads torch before it is needed."""
    if any(queue.name == "chat" for queue in sender.task_consumer.queues):
        lifecycle.fail_of_worker(sender.hostname)
        call_lifecycle.fail_of_worker(sender.hostname)
        intake = call_intake.Intake(sender.hostname)
        for work in (engine_door.trainer_engine, intake.listen):
            threading.Thread(target=work, name=work.__name__, daemon=True).start()


@worker_shutting_down.connect
def end(**_: object) -> None:
    pulse.shutting_down.set()
