"""Reports now and then how much of a file has been read."""

import time
from collections.abc import Iterator

from trainer.events import Emit, RowsRead
from trainer.formats.containers.record import Record

SECONDS = 1.0  # between two reports
EVERY = 256  # rows between two looks at the clock


class Progress:
    """Emits RowsRead events."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._due = time.monotonic() + SECONDS

    def tell(self, rows: int, *, done: int = 0, of: int = 0) -> None:
        """`done` of `of` bytes, where known."""
        if time.monotonic() >= self._due:
            self._emit(RowsRead(rows=rows, done=done, of=of))
            self._due = time.monotonic() + SECONDS

    def through(self, records: Iterator[Record]) -> Iterator[Record]:
        """The same records, with their number reported on the way."""
        for number, record in enumerate(records, 1):
            if not number % EVERY:
                self.tell(number)
            yield record
