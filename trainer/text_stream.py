"""Token by token to text: deltas that never split a character, and whose sum is the text of all tokens."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

UNFINISHED = "\ufffd"  # what a decoder writes for the first bytes of a character whose rest is still to come


@dataclass
class TextStream:
    """Decodes one row's tokens as they come.

    Only a window of the newest tokens is decoded again, so that a long answer costs no more per token than a short one.
    The window begins at tokens already given out, since some tokenizers drop a space at the start of a text.
    """

    decode: Callable[[Sequence[int]], str]
    _ids: list[int] = field(default_factory=list)
    _start: int = 0  # where the window begins
    _given: int = 0  # tokens whose text was given out

    def add(self, token: int) -> str:
        """The text that this token completes; empty while a character is unfinished."""
        self._ids.append(token)
        before, now = self._decode_window()
        if now.endswith(UNFINISHED):
            return ""
        self._start, self._given = self._given, len(self._ids)
        return now[len(before) :]

    def rest(self) -> str:
        """What was held back, given out as it is: nothing more will come."""
        before, now = self._decode_window()
        self._start = self._given = len(self._ids)
        return now[len(before) :]

    def _decode_window(self) -> tuple[str, str]:
        window = self._ids[self._start :]
        return self.decode(window[: self._given - self._start]), self.decode(window)
