"""Rows answered together on one model: their prompts are read in pieces, then each step gives each row a token."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import DynamicCache

from trainer.sampling import Sampler, choose
from trainer.stacked_lora import LoraWeights, Rows, Stack, stack_rows
from trainer.text_stream import TextStream

PREFILL_TOKENS = 512  # of each row in one step, so that a long prompt neither delays other batches nor a stop

Finish = Literal["stop", "length"]


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """What a row gained: `text` to append, and its numbers so far. `finish` says why it ended, None before that."""

    row: int
    text: str
    finish: Finish | None
    tokens: int
    first_token_ms: float
    tokens_per_second: float


@dataclass(kw_only=True)
class Row:
    """One answer in the making."""

    number: int
    prompt_ids: Sequence[int]
    adapter: LoraWeights | None
    limit: int  # tokens it may have
    stop_ids: frozenset[int]
    sampler: Sampler
    text: TextStream
    began: float = field(default_factory=perf_counter)
    first_token: float = 0.0
    tokens: int = 0

    def take(self, token: int) -> Chunk:
        """Count the token and give out the text it completes; a stop token ends the row and is no text."""
        now = perf_counter()
        self.tokens += 1
        self.first_token = self.first_token or now
        finish: Finish | None = None
        text = ""
        if token in self.stop_ids:
            finish = "stop"
        else:
            text = self.text.add(token)
            finish = "length" if self.tokens >= self.limit else None
        if finish:
            text += self.text.rest()
        return self._chunk(text, finish, now)

    def rest(self) -> Chunk:
        """What is held back when the row is stopped from outside."""
        return self._chunk(self.text.rest(), None, perf_counter())

    def _chunk(self, text: str, finish: Finish | None, now: float) -> Chunk:
        seconds = now - self.first_token
        return Chunk(
            row=self.number,
            text=text,
            finish=finish,
            tokens=self.tokens,
            first_token_ms=1000 * (self.first_token - self.began) if self.tokens else 0.0,
            tokens_per_second=(self.tokens - 1) / seconds if self.tokens > 1 and seconds > 0 else 0.0,
        )


class Batch:
    """Rows of different length, padded on the left, with their shared cache of keys and values.

    A row that finishes leaves the batch, so the others no longer pay for it.
    """

    def __init__(self, model: Any, rows: list[Row], *, device: torch.device) -> None:
        self.model = model
        self.rows = rows
        self.device = device
        self.cache = DynamicCache(config=model.config)
        self.width = max(len(row.prompt_ids) for row in rows)
        self.read = 0  # columns of the prompt that the model has read
        gaps = torch.tensor([self.width - len(row.prompt_ids) for row in rows], device=device)
        self.gaps = gaps.unsqueeze(1)
        padded = [[0] * (self.width - len(row.prompt_ids)) + list(row.prompt_ids) for row in rows]
        self.ids = torch.tensor(padded, device=device)
        self.stacks: dict[str, Stack] = {}
        self._restack()

    @torch.inference_mode()
    def step(self, steered: Rows) -> list[Chunk]:
        """One pass of the model: a piece of the prompt (no chunk yet), or one token for each row."""
        with steered.using(self.stacks):
            scores = self._forward(self.ids[:, self.read : self.read + PREFILL_TOKENS])
        if self.read < self.width:
            return []
        chosen = self._choose(scores)
        chunks = [row.take(token) for row, token in zip(self.rows, chosen, strict=True)]
        self.ids = torch.cat([self.ids, torch.tensor(chosen, device=self.device).unsqueeze(1)], dim=1)
        self.width += 1
        self._drop([at for at, chunk in enumerate(chunks) if chunk.finish is None])
        return chunks

    def _forward(self, ids: Tensor) -> Tensor:
        """Scores of the last column, of shape (rows, vocabulary)."""
        end = self.read + ids.shape[1]
        columns = torch.arange(end, device=self.device).unsqueeze(0)
        output = self.model(
            input_ids=ids,
            # A mask costs time in every layer; without padding there is nothing to mask.
            attention_mask=(columns >= self.gaps).long() if self.padded else None,
            position_ids=(columns[:, self.read :] - self.gaps).clamp(min=0),
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self.read = end
        scores: Tensor = output.logits[:, -1]
        return scores

    def _choose(self, scores: Tensor) -> list[int]:
        return choose(scores, [row.sampler for row in self.rows])

    def _drop(self, kept: list[int]) -> None:
        if len(kept) == len(self.rows):
            return
        self.rows = [self.rows[at] for at in kept]
        if self.rows:
            index = torch.tensor(kept, device=self.device)
            self.ids, self.gaps = self.ids[index], self.gaps[index]
            self.cache.batch_select_indices(index)
            self._restack()

    def _restack(self) -> None:
        self.padded = bool(self.gaps.any())
        self.stacks = stack_rows([row.adapter for row in self.rows])
