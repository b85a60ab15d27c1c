"""Carries a turn's answers out of the engine: to the stream at once, to the database about once a second."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from django.db import DatabaseError, InterfaceError, connection

from webapp.chat import lifecycle, wire
from webapp.chat.models import Completion, CompletionStatus, Turn
from webapp.common import streams

logger = logging.getLogger(__name__)

FLUSH_SECONDS = 0.03
SAVE_SECONDS = 1.0


@dataclass
class Column:
    """One answer while it is written. It is open until it has ended, or somebody else has ended it."""

    completion: Completion
    text: str = ""
    pending: str = ""
    relayed: int = 0  # UTF-16 units that are on the stream
    saved: int = 0  # characters that are in the database
    numbers: dict[str, Any] = field(default_factory=dict)
    is_open: bool = True


class Relay:
    """The columns of one turn that this worker writes."""

    def __init__(self, turn: Turn, completions: list[Completion]) -> None:
        self.stream = turn.stream
        self.columns = [Column(completion) for completion in completions]
        self._flushed = self._saved = time.monotonic()

    @property
    def open_columns(self) -> list[Column]:
        return [column for column in self.columns if column.is_open]

    def take(self, column: Column, text: str, numbers: dict[str, Any]) -> None:
        """More of one answer. NUL is left out: some models have a token for it, and PostgreSQL takes none."""
        text = text.replace("\0", "")
        column.text += text
        column.pending += text
        column.numbers = numbers
        now = time.monotonic()
        if now - self._flushed >= FLUSH_SECONDS:
            self._flushed = now
            for one in self.columns:
                self._flush(one)
        if now - self._saved >= SAVE_SECONDS:
            self._saved = now
            for one in self.open_columns:
                self._save(one)

    def finish(self, column: Column) -> None:
        self._end(column, CompletionStatus.FINISHED, lifecycle.finish)

    def stop(self, column: Column) -> None:
        self._end(column, CompletionStatus.STOPPED, lifecycle.stop)

    def fail(self, column: Column, error: str) -> None:
        """End one answer with a sentence for the person who asked; what was written stays."""
        column.completion.error = error[:500]
        column.numbers = {}
        self._end(column, CompletionStatus.FAILED, lambda pk, text, _: lifecycle.fail(pk, error, text))

    def fail_rest(self, error: str) -> None:
        """End all that is open. A text that cannot be written ends with as much as the database has of it."""
        for column in self.open_columns:
            try:
                self.fail(column, error)
            except (DatabaseError, InterfaceError):
                logger.exception("answer %s could not be ended", column.completion.pk)
                self._fail_with_saved(column, error)

    def _fail_with_saved(self, column: Column, error: str) -> None:
        connection.close_if_unusable_or_obsolete()
        column.text = column.text[: column.saved]
        try:
            self.fail(column, error)
        except (DatabaseError, InterfaceError):  # it gives no more signs of life, so the scheduler will end it
            logger.exception("answer %s is left to the scheduler", column.completion.pk)

    def _flush(self, column: Column) -> None:
        if column.pending and column.is_open:
            text, column.pending = column.pending, ""
            streams.append(self.stream, wire.pack(wire.delta(column.completion.pk, column.relayed, text)))
            column.relayed += wire.units(text)

    def _save(self, column: Column) -> None:
        if len(column.text) > column.saved:
            column.is_open = lifecycle.keep_text(column.completion.pk, column.text)
            column.saved = len(column.text)

    def _end(self, column: Column, status: CompletionStatus, write: Callable[..., bool]) -> None:
        if not column.is_open:
            return
        completion = column.completion
        # The database first: a page that hears of the end may ask for it at once.
        won = write(completion.pk, column.text, column.numbers)
        column.is_open = False
        if won:
            completion.status, completion.text, completion.numbers = status, column.text, column.numbers
            streams.append(self.stream, wire.pack(wire.ended(completion)))
