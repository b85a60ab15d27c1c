"""Notices answers whose chat worker has gone: their beat stands still by this process's own clock."""

import time
from uuid import UUID

from webapp.chat import lifecycle


class Silence:
    """Remembers when each counter was seen to move last. Wall clocks of other machines play no part."""

    def __init__(self) -> None:
        self._seen: dict[UUID, tuple[int, float]] = {}

    def fail_lost(self, *, lease: float) -> int:
        """Fail what has not moved for `lease` seconds; returns how many."""
        now = time.monotonic()
        beats = lifecycle.beats()
        for pk, beat in beats.items():
            if self._seen.get(pk, (None,))[0] != beat:
                self._seen[pk] = (beat, now)
        self._seen = {pk: seen for pk, seen in self._seen.items() if pk in beats}
        silent = [(pk, beat) for pk, (beat, since) in self._seen.items() if now - since >= lease]
        return sum(lifecycle.fail_silent(pk, seen_beat=beat) for pk, beat in silent)


silence = Silence()
