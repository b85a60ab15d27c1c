"""Stop strings: found across token boundaries and never part of the output."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass
class StopStrings:
    """Passes a row's text on, but holds back what may be the beginning of a stop string."""

    stops: Sequence[str] = ()
    _held: str = ""

    def add(self, text: str) -> tuple[str, bool]:
        """The text to emit, and whether a stop string ended the answer."""
        if not self.stops:
            return text, False
        text = self._held + text
        found = [at for at in map(text.find, self.stops) if at >= 0]
        if found:
            self._held = ""
            return text[: min(found)], True
        keep = max(_partial_match(text, stop) for stop in self.stops)
        given, self._held = text[: len(text) - keep], text[len(text) - keep :]
        return given, False

    def rest(self) -> str:
        """The text still held back, which turned out to be no stop string."""
        held, self._held = self._held, ""
        return held


def _partial_match(text: str, stop: str) -> int:
    """Length of the longest suffix of `text` that is a proper prefix of `stop`."""
    longest = min(len(stop) - 1, len(text))
    return next((size for size in range(longest, 0, -1) if text.endswith(stop[:size])), 0)
