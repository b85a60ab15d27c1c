"""Continuous batching: requests that arrive at different times share the model's steps.

Scheduling is per step (Orca, Yu et al. 2022, OSDI): a prompt is prefilled in chunks between the decoding steps of
others, then its rows join their batch.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import TracebackType

from trainer.answer_row import Chunk, Row
from trainer.batch import Batch, indices_of
from trainer.stacked_lora import ActiveAdapters

MAX_ROWS = 64  # per batch; others wait
BACKGROUND_EVERY = 8  # while there is interactive work, background work gets one step in so many


@dataclass(eq=False)
class Submission:
    """Rows requested together, and the chunks ready for their caller."""

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


class StepScheduler:
    """Whichever caller needs a token runs the next step, on behalf of all; the others wait for it.

    So there is no scheduler thread, a single caller never waits, and nobody is ever a step behind.
    """

    def __init__(self, make_batch: Callable[[list[Row]], Batch], active_adapters: ActiveAdapters) -> None:
        self._make_batch = make_batch
        self._active_adapters = active_adapters
        self._changed = threading.Condition()
        self._stepping = False
        self._submitted: deque[Submission] = deque()
        self._submissions: dict[int, Submission] = {}  # by id() of their rows
        self._prefilling: list[Batch] = []
        self._decoding: list[Batch] = []
        self._steps = 0
        self._prefilled_last = False  # whether the last step was a prefill

    def run(self, rows: list[Row], should_stop: Callable[[], bool], *, background: bool) -> Iterator[Chunk]:
        """Generate these rows; see `Engine.generate`."""
        submission = Submission(list(rows), background)
        with self._changed:
            self._submitted.append(submission)
        try:
            while submission.rows or submission.chunks:
                if should_stop():
                    self._withdraw(submission)
                    yield from submission.chunks
                    yield from [row.rest() for row in submission.rows]
                    return
                yield from self._next(submission)
        finally:
            self._withdraw(submission)

    def _next(self, submission: Submission) -> list[Chunk]:
        """The chunks ready for a submission, after one more step if none are. May be empty during prefill."""
        with self._changed:
            if not submission.chunks and self._stepping:
                self._changed.wait()
            if submission.error is not None:
                raise submission.error
            if submission.chunks or self._stepping:
                return _drain(submission.chunks)
            self._stepping = True
        try:
            self._step()
        finally:
            with self._changed:
                self._stepping = False
                self._sweep()
                self._changed.notify_all()
        if submission.error is not None:
            raise submission.error
        return _drain(submission.chunks)

    def _withdraw(self, submission: Submission) -> None:
        """Stop stepping its rows. Returns once no step uses them any more."""
        if not submission.rows:
            return
        with self._changed:
            submission.left = True
            while self._stepping:
                self._changed.wait()
            self._sweep()

    def _sweep(self) -> None:
        """Drop the rows of submissions that were withdrawn or have failed."""
        self._submitted = deque(one for one in self._submitted if not one.left)
        for batch in (*self._prefilling, *self._decoding):
            batch.keep(indices_of(batch.rows, self._is_wanted))
        self._prefilling = [batch for batch in self._prefilling if batch.rows]
        self._decoding = [batch for batch in self._decoding if batch.rows]
        here = {id(row) for batch in (*self._prefilling, *self._decoding) for row in batch.rows}
        self._submissions = {key: one for key, one in self._submissions.items() if key in here}

    def _is_wanted(self, row: Row) -> bool:
        submission = self._submissions[id(row)]
        return not submission.left and submission.error is None

    def _step(self) -> None:
        """One prefill chunk, or one token for each decoding row; alternating while there is both."""
        self._steps += 1
        while self._submitted:
            submission = self._submitted.popleft()
            self._submissions |= {id(row): submission for row in submission.rows}
            with self._failing(submission.rows):
                self._prefilling.append(self._make_batch(list(submission.rows)))
        self._prefilling.sort(key=self._is_background)
        first = self._prefilling[0] if self._prefilling else None
        self._prefilled_last = (
            first is not None and not self._prefilled_last and self._has_turn(first) and self._has_room(first)
        )
        if first is not None and self._prefilled_last:
            self._prefill(first)
            return
        for batch in [one for one in self._decoding if self._has_turn(one)]:
            self._advance(batch)

    def _prefill(self, batch: Batch) -> None:
        self._advance(batch)
        if batch.is_prefilling and batch.rows:
            return
        self._prefilling.remove(batch)
        for other in self._decoding:
            if batch.rows and batch.is_plain and other.is_plain and self._are_alike(batch, other):
                with self._failing([*batch.rows, *other.rows]):
                    other.join(batch)
                return
        self._decoding.append(batch)

    def _advance(self, batch: Batch) -> None:
        with self._failing(batch.rows):
            for row, chunk in batch.step(self._active_adapters):
                self._submissions[id(row)].take(row, chunk)

    def _are_alike(self, one: Batch, other: Batch) -> bool:
        return bool(other.rows) and self._is_background(one) == self._is_background(other)

    def _is_background(self, batch: Batch) -> bool:
        return bool(batch.rows) and self._submissions[id(batch.rows[0])].background

    def _has_turn(self, batch: Batch) -> bool:
        """Background batches leave most steps to interactive ones."""
        if not self._is_background(batch) or self._steps % BACKGROUND_EVERY == 0:
            return True
        return all(self._is_background(one) for one in (*self._prefilling, *self._decoding))

    def _has_room(self, batch: Batch) -> bool:
        rows = [len(one.rows) for one in self._decoding if self._are_alike(batch, one)]
        return not rows or sum(rows) + len(batch.rows) <= MAX_ROWS

    def _failing(self, rows: list[Row]) -> "_Failing":
        return _Failing([self._submissions[id(row)] for row in rows])


class _Failing:
    """Errors in the block are raised to the callers of its rows, and to nobody else."""

    def __init__(self, submissions: list[Submission]) -> None:
        self._submissions = submissions

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> bool:
        if not isinstance(error, Exception):  # such as KeyboardInterrupt
            return False
        for submission in self._submissions:
            submission.error = error
        return True


def _drain(chunks: deque[Chunk]) -> list[Chunk]:
    drained = list(chunks)
    chunks.clear()
    return drained
