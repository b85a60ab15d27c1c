"""Streaming detokenisation: deltas that never split a character and add up to the text of all tokens."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

UNFINISHED = "\ufffd"  # what decoding gives for an incomplete UTF-8 character


@dataclass
class TextStream:
    """Decodes one row's tokens as they come.

    Only a window of recent tokens is decoded again, so the cost per token does not grow with the answer. The window
    starts with tokens already emitted, since some tokenizers drop a space at the start of a text.
    """

    decode: Callable[[Sequence[int]], str]
    _ids: list[int] = field(default_factory=list)
    _start: int = 0  # where the window begins
    _given: int = 0  # tokens whose text was emitted

    def add(self, token: int) -> str:
        """The text that this token completes; empty while a character is incomplete."""
        self._ids.append(token)
        before, now = self._decode_window()
        if now.endswith(UNFINISHED):
            return ""
        self._start, self._given = self._given, len(self._ids)
        return now[len(before) :]

    def rest(self) -> str:
        """The text still held back, as it is: no more tokens will come."""
        before, now = self._decode_window()
        self._start = self._given = len(self._ids)
        return now[len(before) :]

    def _decode_window(self) -> tuple[str, str]:
        window = self._ids[self._start :]
        return self.decode(window[: self._given - self._start]), self.decode(window)
