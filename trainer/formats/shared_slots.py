"""Hands large results from one process to another through memory that both have: no pipe, and one copy."""

from collections.abc import Callable
from dataclasses import dataclass
from mmap import mmap

ALIGNED = 64  # bytes; where columns like to begin


@dataclass(frozen=True)
class Place:
    """Where something lies in the memory."""

    begin: int
    end: int


class SharedSlots:
    """Memory in slots of `size` bytes, made before the processes part: a worker fills one, its parent reads it.

    Worth it: to write the same bytes into a pipe and to read them there takes as long as to hash them.
    """

    def __init__(self, count: int, size: int) -> None:
        self.count = count
        self._size = size
        self._memory = mmap(-1, count * size)

    def filling(self, slot: int) -> Callable[[bytes], Place | bytes]:
        """Puts one piece after the other into a slot and says where; one that has no room is handed back as it is."""
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

    def look(self, piece: Place | bytes) -> bytes | memoryview:
        """What was put there, until the slot is filled again."""
        return memoryview(self._memory)[piece.begin : piece.end] if isinstance(piece, Place) else piece
