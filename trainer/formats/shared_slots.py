"""Passes large results between processes through shared memory, with one copy and no pipe."""

from collections.abc import Callable
from dataclasses import dataclass
from mmap import mmap

ALIGNED = 64  # bytes; alignment of Arrow buffers


@dataclass(frozen=True)
class Place:
    """A range in the shared memory."""

    begin: int
    end: int


class SharedSlots:
    """Shared memory in slots of `size` bytes, allocated before fork: a worker fills a slot, the parent reads it.

    Writing and reading the same bytes through a pipe takes as long as hashing them.
    """

    def __init__(self, count: int, size: int) -> None:
        self.count = count
        self._size = size
        self._memory = mmap(-1, count * size)

    def writer_for(self, slot: int) -> Callable[[bytes], Place | bytes]:
        """A function that appends buffers to a slot and returns their places, or a buffer itself if it does not fit."""
        free, end = slot * self._size, (slot + 1) * self._size

        def put(piece: bytes) -> Place | bytes:
            nonlocal free
            place = Place(free, free + len(piece))
            if place.end > end:
                return piece
            self._memory[place.begin : place.end] = piece
            free = place.end + -place.end % ALIGNED
            return place

        return put

    def read(self, piece: Place | bytes) -> bytes | memoryview:
        """The bytes, valid until the slot is filled again."""
        return memoryview(self._memory)[piece.begin : piece.end] if isinstance(piece, Place) else piece
