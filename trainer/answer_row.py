"""One answer being generated: incremental detokenisation, stop conditions and timing."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Literal

from trainer.errors import TrainerError
from trainer.logprobs import TokenLogprobs
from trainer.opening import Opening
from trainer.penalties import TokenCounts
from trainer.sampling import Sampler
from trainer.stacked_lora import LoraWeights
from trainer.stopping import StopStrings
from trainer.text_stream import TextStream

Finish = Literal["stop", "length"]


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """New `text` of a row, and its totals so far. `finish`: why it ended, None before that.

    `scored`: log probabilities of the tokens whose text is in this chunk, for rows that asked for them.
    """

    row: int
    text: str
    finish: Finish | None
    tokens: int
    first_token_ms: float
    tokens_per_second: float
    scored: tuple[TokenLogprobs, ...] = ()
    error: TrainerError | None = None


@dataclass(kw_only=True, eq=False)
class Row:
    """The state of one answer."""

    number: int
    prompt_ids: Sequence[int]
    adapter: LoraWeights | None
    limit: int  # tokens
    stop_ids: frozenset[int]
    sampler: Sampler
    text: TextStream
    stops: StopStrings = field(default_factory=StopStrings)
    token_counts: TokenCounts | None = None
    opening: Opening | None = None
    top_logprobs: int | None = None
    began: float = field(default_factory=perf_counter)
    first_token: float = 0.0
    tokens: int = 0
    _decoded: int = 0  # characters, including those held back
    _emitted: int = 0  # characters
    _scored: list[tuple[int, TokenLogprobs]] = field(default_factory=list)  # with the offset of their text

    def take(self, token: int, scored: TokenLogprobs | None = None) -> Chunk:
        """Add a token and emit the text it completes. A stop token ends the row and is not part of the text."""
        now = perf_counter()
        self.tokens += 1
        if self.opening is not None:
            self.opening.take(token)
        self.first_token = self.first_token or now
        text = ""
        finish: Finish | None = None
        if token in self.stop_ids:
            finish = "stop"
        else:
            if scored is not None:
                self._scored.append((self._decoded, scored))
            text, found = self._through_stops(self.text.add(token))
            finish = "stop" if found else "length" if self.tokens >= self.limit else None
            if found:
                return self._chunk(text, "stop", now, cut=True)
        if finish:
            more, found = self._through_stops(self.text.rest())
            text += more if found else more + self.stops.rest()
            return self._chunk(text, "stop" if found else finish, now, cut=found)
        return self._chunk(text, None, now)

    def rest(self) -> Chunk:
        """Emit what is held back, when the row is stopped from outside."""
        text, found = self._through_stops(self.text.rest())
        return self._chunk(text if found else text + self.stops.rest(), None, perf_counter(), cut=found)

    def broken(self, error: TrainerError) -> Chunk:
        """The chunk that ends a row with an error."""
        return Chunk(
            row=self.number,
            text="",
            finish=None,
            tokens=self.tokens,
            first_token_ms=0.0,
            tokens_per_second=0.0,
            error=error,
        )

    def _through_stops(self, text: str) -> tuple[str, bool]:
        self._decoded += len(text)
        return self.stops.add(text)

    def _chunk(self, text: str, finish: Finish | None, now: float, *, cut: bool = False) -> Chunk:
        seconds = now - self.first_token
        self._emitted += len(text)
        return Chunk(
            row=self.number,
            text=text,
            finish=finish,
            tokens=self.tokens,
            first_token_ms=1000 * (self.first_token - self.began) if self.tokens else 0.0,
            tokens_per_second=(self.tokens - 1) / seconds if self.tokens > 1 and seconds > 0 else 0.0,
            scored=self._release(everything=finish is not None and not cut),
        )

    def _release(self, *, everything: bool) -> tuple[TokenLogprobs, ...]:
        """Log probabilities of tokens whose text has begun to be emitted; those of a stop string are never released."""
        if not self._scored:
            return ()
        released = [one for start, one in self._scored if everything or start < self._emitted]
        self._scored = self._scored[len(released) :]
        return tuple(released)
