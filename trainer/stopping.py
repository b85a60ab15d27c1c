"""Text that ends an answer: found across the borders of tokens, and never given out."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass
class StopStrings:
    """Lets a row's text through, but for what might be the beginning of one of `stops`."""

    stops: Sequence[str] = ()
    _held: str = ""

    def add(self, text: str) -> tuple[str, bool]:
        """What can be given out, and whether a stop string was found: then nothing may follow."""
        if not self.stops:
            return text, False
        text = self._held + text
        found = [at for at in map(text.find, self.stops) if at >= 0]
        if found:
            self._held = ""
            return text[: min(found)], True
        keep = max(_begun(text, stop) for stop in self.stops)
        given, self._held = text[: len(text) - keep], text[len(text) - keep :]
        return given, False

    def rest(self) -> str:
        """What was held back: no stop string came of it."""
        held, self._held = self._held, ""
        return held


def _begun(text: str, stop: str) -> int:
    """How many characters at the end of `text` begin `stop`."""
    longest = min(len(stop) - 1, len(text))
    return next((size for size in range(longest, 0, -1) if text.endswith(stop[:size])), 0)
