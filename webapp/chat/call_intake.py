"""How calls reach a chat worker at once: it hears their rings on Redis, and answers each in a thread.

Through the queue of tasks a ring takes several milliseconds more, and the queue's few threads are for people's turns.
"""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

from django.db import DatabaseError, close_old_connections, connection

from webapp.chat import call_answering, call_lifecycle
from webapp.chat.models import Call
from webapp.chat.pulse import shutting_down
from webapp.common import streams

logger = logging.getLogger(__name__)

RINGS = "calls:rings"
MOST = 32  # calls that one worker answers at a time: their rows share the engine's steps
LISTEN_SECONDS = 5.0


def ring(call_id: UUID) -> bool:
    """Every worker that listens hears it, and one claims the call. False when Redis is away.

    A ring that is lost does no harm: the scheduler rings again, through the queue.
    """
    return streams.append(RINGS, {"call": str(call_id)}, keep=1000)


class Intake:
    """One worker's ear. It claims a call only when it has a thread for it, so that another worker may."""

    def __init__(self, worker: str) -> None:
        self._worker = worker
        self._free = threading.Semaphore(MOST)
        self._threads = ThreadPoolExecutor(MOST, thread_name_prefix="call")

    def listen(self) -> None:
        """Until the worker is told to end. First comes what was rung before it listened."""
        after = streams.newest(RINGS)
        self._take_waiting()
        while not shutting_down.is_set():
            entries = streams.wait_for(RINGS, after=after, seconds=LISTEN_SECONDS)
            for entry_id, entry in entries:
                after = entry_id
                self._take(UUID(entry["call"]))
            if not entries:
                connection.close()  # it stays for the next ring, but never long enough to go stale

    def _take_waiting(self) -> None:
        try:
            waiting = call_lifecycle.waiting()
        except DatabaseError as error:
            logger.warning("calls that waited are left to the scheduler: %s", error)
            return
        for call_id in waiting:
            self._take(call_id)

    def _take(self, call_id: UUID) -> None:
        self._free.acquire()
        call = None if shutting_down.is_set() else self._claim(call_id)
        if call is None:
            self._free.release()
        else:
            self._threads.submit(self._answer, call)

    def _claim(self, call_id: UUID) -> Call | None:
        try:
            return call_lifecycle.claim(call_id, worker=self._worker)
        except DatabaseError as error:
            logger.warning("call %s waits for the scheduler: %s", call_id, error)
            connection.close()
            return None

    def _answer(self, call: Call) -> None:
        try:
            close_old_connections()  # of this thread's last call, should that be long ago
            call_answering.answer(call)
        except DatabaseError as error:  # its end could not be noted: without signs of life it is failed in time
            logger.warning("call %s: %s", call.pk, error)
        finally:
            close_old_connections()
            self._free.release()
