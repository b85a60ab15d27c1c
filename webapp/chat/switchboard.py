"""Which calls this worker answers: their signs of life, and word of those whose asker has hung up."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from django.db import DatabaseError, connection

from webapp.chat import call_lifecycle
from webapp.common import streams

logger = logging.getLogger(__name__)

HANG_UPS = "calls:hang-ups"
BEAT_SECONDS = 1.0
LISTEN_SECONDS = 5.0


class Switchboard:
    """Two threads for all calls of a process, from its first call on: one listens on Redis, one beats in the database.

    A hang-up is heard within milliseconds; without Redis it is seen at the next beat.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: dict[UUID, threading.Event] = {}
        self._busy = threading.Event()
        self._is_open = False

    @contextmanager
    def connected(self, call_id: UUID) -> Iterator[threading.Event]:
        """For the time of the block: an event that is set once nobody waits for the call."""
        hung_up = threading.Event()
        with self._lock:
            self._calls[call_id] = hung_up
            self._busy.set()
            if not self._is_open:
                self._is_open = True
                for work in (self._listen, self._beat):
                    threading.Thread(target=work, name=f"calls {work.__name__}", daemon=True).start()
        try:
            yield hung_up
        finally:
            with self._lock:
                del self._calls[call_id]
                if not self._calls:
                    self._busy.clear()

    def _listen(self) -> None:
        after = "0"  # what is there already concerns no call of ours
        while True:
            self._busy.wait()
            for entry_id, entry in streams.wait_for(HANG_UPS, after=after, seconds=LISTEN_SECONDS):
                after = entry_id
                self._hang_up(UUID(entry["call"]))

    def _hang_up(self, call_id: UUID) -> None:
        with self._lock:
            if hung_up := self._calls.get(call_id):
                hung_up.set()

    def _beat(self) -> None:
        while True:
            self._busy.wait()
            with self._lock:
                mine = set(self._calls)
            try:
                for gone in mine - call_lifecycle.beat(mine):
                    self._hang_up(gone)
            except DatabaseError as error:  # busy or away for a moment
                logger.warning("calls: %s", error)
            finally:
                connection.close()
            threading.Event().wait(BEAT_SECONDS)


switchboard = Switchboard()
