"""Beside each turn that is answered: watches for Stop, gives signs of life, tells pages how long loading takes."""

from __future__ import annotations

import logging
import threading
import time
from types import TracebackType

from django.db import DatabaseError, connection

from webapp.chat import lifecycle, wire
from webapp.chat.models import Completion, Turn
from webapp.common import streams

logger = logging.getLogger(__name__)

LOOK_SECONDS = 0.4
BEAT_SECONDS = 1.0

# Set once when the chat worker is told to end: answers stop at the next token instead of holding it up.
shutting_down = threading.Event()


class Pulse:
    """A thread of its own, since loading a model or reading a long prompt blocks the one that answers."""

    def __init__(self, turn: Turn, completions: list[Completion], *, worker: str) -> None:
        self._turn = turn
        self._ids = [completion.pk for completion in completions]
        self._worker = worker
        self._over = threading.Event()
        self._stop = threading.Event()
        self._loaded = threading.Event()
        self._since = self._beaten = time.monotonic()
        self._thread = threading.Thread(target=self._run, name=f"pulse {turn.pk}", daemon=True)

    def __enter__(self) -> Pulse:
        self._append(wire.loading(self._ids, 0))
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()

    @property
    def was_stopped(self) -> bool:
        """Whether the person who asked wants no more."""
        return self._stop.is_set()

    def should_stop(self) -> bool:
        """Asked before every token."""
        return self._stop.is_set() or shutting_down.is_set()

    def loaded(self) -> None:
        """The model is there."""
        self._loaded.set()
        self._append(wire.reading(self._ids))

    def _run(self) -> None:
        try:
            while not self._over.wait(LOOK_SECONDS):
                self._look()
        finally:
            connection.close()

    def _look(self) -> None:
        try:
            if not self._stop.is_set() and lifecycle.stop_requested(self._turn.pk):
                self._stop.set()
            if self._stop.is_set() and not self._loaded.is_set():
                lifecycle.stop_unbegun(self._turn.pk)
            if time.monotonic() - self._beaten >= BEAT_SECONDS:
                self._beaten = time.monotonic()
                self._beat()
        except DatabaseError as error:  # busy or away for a moment; the next look tries again
            logger.warning("turn %s: %s", self._turn.pk, error)

    def _beat(self) -> None:
        lifecycle.beat(self._turn.pk, worker=self._worker)
        if not (self._loaded.is_set() or self._stop.is_set()):
            self._append(wire.loading(self._ids, int(time.monotonic() - self._since)))

    def _append(self, event: wire.Event) -> None:
        streams.append(self._turn.stream, wire.pack(event))
