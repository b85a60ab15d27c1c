"""Answers asked for at different times share the model's steps: rows join when they come and leave when they are done.

Continuous batching at the level of one step (Orca, Yu et al. 2022, OSDI): a prompt is read piece by piece between the
steps of those who are answering, then its rows join their batch.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import TracebackType

from trainer.answer_row import Chunk, Row
from trainer.batch import Batch, places
from trainer.stacked_lora import Rows

MAX_ROWS = 64  # that one batch has; others wait for room
BACKGROUND_EVERY = 8  # while somebody waits at a screen, others get one step in so many


@dataclass(eq=False)
class Ticket:
    """Rows asked for together, and what is there for their asker."""

    rows: list[Row]
    background: bool
    chunks: deque[Chunk] = field(default_factory=deque)
    error: Exception | None = None
    left: bool = False

    def take(self, row: Row, chunk: Chunk) -> None:
        if chunk.error is not None:
            self.error = chunk.error
        self.chunks.append(chunk)
        if chunk.finish is not None:
            self.rows.remove(row)


class SharedSteps:
    """Whoever needs a token makes the next step, for everybody; the others wait for it.

    So there is no thread to keep, one asker alone waits for nobody, and none is ever a step behind.
    """

    def __init__(self, make_batch: Callable[[list[Row]], Batch], steered: Rows) -> None:
        self._make_batch = make_batch
        self._steered = steered
        self._changed = threading.Condition()
        self._stepping = False
        self._arrived: deque[Ticket] = deque()
        self._tickets: dict[int, Ticket] = {}  # by the identity of their rows
        self._reading: list[Batch] = []
        self._answering: list[Batch] = []
        self._steps = 0
        self._has_read = False  # in the last step

    def run(self, rows: list[Row], should_stop: Callable[[], bool], *, background: bool) -> Iterator[Chunk]:
        """Answer these rows; see `Engine.generate`."""
        ticket = Ticket(list(rows), background)
        with self._changed:
            self._arrived.append(ticket)
        try:
            while ticket.rows or ticket.chunks:
                if should_stop():
                    self._leave(ticket)
                    yield from ticket.chunks
                    yield from [row.rest() for row in ticket.rows]
                    return
                yield from self._next(ticket)
        finally:
            self._leave(ticket)

    def _next(self, ticket: Ticket) -> list[Chunk]:
        """What is there for a ticket, after one more step if nothing was. May be nothing: a prompt takes many."""
        with self._changed:
            if not ticket.chunks and self._stepping:
                self._changed.wait()
            if ticket.error is not None:
                raise ticket.error
            if ticket.chunks or self._stepping:
                return _drain(ticket.chunks)
            self._stepping = True
        try:
            self._step()
        finally:
            with self._changed:
                self._stepping = False
                self._sweep()
                self._changed.notify_all()
        if ticket.error is not None:
            raise ticket.error
        return _drain(ticket.chunks)

    def _leave(self, ticket: Ticket) -> None:
        """Its rows get no more steps. Returns when nobody touches them any more."""
        if not ticket.rows:
            return
        with self._changed:
            ticket.left = True
            while self._stepping:
                self._changed.wait()
            self._sweep()

    def _sweep(self) -> None:
        """Let go of the rows whose asker has left or was failed."""
        self._arrived = deque(one for one in self._arrived if not one.left)
        for batch in (*self._reading, *self._answering):
            batch.keep(places(batch.rows, self._is_wanted))
        self._reading = [batch for batch in self._reading if batch.rows]
        self._answering = [batch for batch in self._answering if batch.rows]
        here = {id(row) for batch in (*self._reading, *self._answering) for row in batch.rows}
        self._tickets = {key: one for key, one in self._tickets.items() if key in here}

    def _is_wanted(self, row: Row) -> bool:
        ticket = self._tickets[id(row)]
        return not ticket.left and ticket.error is None

    def _step(self) -> None:
        """In turn, as long as there is both: one piece of a prompt, and one token for each row that answers."""
        self._steps += 1
        while self._arrived:
            ticket = self._arrived.popleft()
            self._tickets |= {id(row): ticket for row in ticket.rows}
            with self._failing(ticket.rows):
                self._reading.append(self._make_batch(list(ticket.rows)))
        self._reading.sort(key=self._is_background)
        first = self._reading[0] if self._reading else None
        self._has_read = first is not None and not self._has_read and self._has_turn(first) and self._has_room(first)
        if first is not None and self._has_read:
            self._read(first)
            return
        for batch in [one for one in self._answering if self._has_turn(one)]:
            self._advance(batch)

    def _read(self, batch: Batch) -> None:
        self._advance(batch)
        if batch.is_reading and batch.rows:
            return
        self._reading.remove(batch)
        for other in self._answering:
            if batch.rows and batch.is_plain and other.is_plain and self._are_alike(batch, other):
                with self._failing([*batch.rows, *other.rows]):
                    other.join(batch)
                return
        self._answering.append(batch)

    def _advance(self, batch: Batch) -> None:
        with self._failing(batch.rows):
            for row, chunk in batch.step(self._steered):
                self._tickets[id(row)].take(row, chunk)

    def _are_alike(self, one: Batch, other: Batch) -> bool:
        return bool(other.rows) and self._is_background(one) == self._is_background(other)

    def _is_background(self, batch: Batch) -> bool:
        return bool(batch.rows) and self._tickets[id(batch.rows[0])].background

    def _has_turn(self, batch: Batch) -> bool:
        """Background work leaves most steps to those who wait."""
        if not self._is_background(batch) or self._steps % BACKGROUND_EVERY == 0:
            return True
        return all(self._is_background(one) for one in (*self._reading, *self._answering))

    def _has_room(self, batch: Batch) -> bool:
        rows = [len(one.rows) for one in self._answering if self._are_alike(batch, one)]
        return not rows or sum(rows) + len(batch.rows) <= MAX_ROWS

    def _failing(self, rows: list[Row]) -> "_Failing":
        return _Failing([self._tickets[id(row)] for row in rows])


class _Failing:
    """Whatever breaks in a block is raised where its rows were asked for, and nowhere else."""

    def __init__(self, tickets: list[Ticket]) -> None:
        self._tickets = tickets

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> bool:
        if not isinstance(error, Exception):  # the end of the process is nobody's failure
            return False
        for ticket in self._tickets:
            ticket.error = error
        return True


def _drain(chunks: deque[Chunk]) -> list[Chunk]:
    drained = list(chunks)
    chunks.clear()
    return drained
