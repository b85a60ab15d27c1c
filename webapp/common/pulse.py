"""Signs of life of long work, given from inside it."""

import time
from collections.abc import Callable

from django.conf import settings


class Pulse:
    """Asked all the time whether the work is still ours; gives its sign of life now and then."""

    def __init__(self, beat: Callable[[], bool]) -> None:
        self._beat = beat
        self._due = time.monotonic() + settings.HEARTBEAT_SECONDS

    def __call__(self) -> bool:
        if time.monotonic() < self._due:
            return True
        self._due = time.monotonic() + settings.HEARTBEAT_SECONDS
        return self._beat()
