"""Rows answered together on one model: their prompts are read in pieces, then each step gives each row a token."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from trainer.answer_row import Chunk, Row
from trainer.errors import TrainerError
from trainer.logprobs import score_tokens
from trainer.opening import hold_to
from trainer.penalties import Penalties
from trainer.sampling import NOT_FINITE, choose
from trainer.stacked_lora import Change, Rows, stack_rows

PREFILL_TOKENS = 512  # of each row in one step, so that a long prompt neither delays other batches nor a stop


class Batch:
    """Rows of different length, padded on the left, with their shared cache of keys and values.

    Rows with the same prompt and adapter read it once. A row that finishes leaves the batch, so the others no longer
    pay for it. Batches that have read their prompts can become one.
    """

    def __init__(self, model: Any, rows: list[Row], *, device: torch.device) -> None:
        self.model = model
        self.rows = rows
        self.readers, self._read_by = readers_of(rows)  # while the prompts are read, tensors have one row for each
        self.device = device
        self.cache: Any = DynamicCache(config=model.config)
        width = max(len(row.prompt_ids) for row in rows)
        self.read = 0  # columns that the model has read
        self.gaps = [width - len(row.prompt_ids) for row in self.readers]  # columns of padding before each row
        padded = [[0] * gap + list(row.prompt_ids) for gap, row in zip(self.gaps, self.readers, strict=True)]
        self.ids = torch.tensor(padded, device=device)  # columns that the model has yet to read
        self.is_reading = True  # until each row has its first token
        self.penalties: Penalties | None = None
        self.stacks: dict[str, Change] = {}
        self._recompose()

    @property
    def is_plain(self) -> bool:
        """Whether the cache is keys and values of all columns in every layer: only such caches can be joined or cut."""
        return all(type(layer) is DynamicLayer and layer.is_initialized for layer in self.cache.layers)

    @torch.inference_mode()
    def step(self, steered: Rows) -> list[tuple[Row, Chunk]]:
        """One pass of the model: a piece of the prompt (no chunk yet), or one token for each row."""
        piece, self.ids = self.ids[:, :PREFILL_TOKENS], self.ids[:, PREFILL_TOKENS:]
        with steered.using(self.stacks):
            scores = self._forward(piece)
        if self.ids.shape[1]:
            return []
        if self.is_reading:
            scores = self._part(scores)
        chosen = self._choose(scores)
        scored = score_tokens(scores, chosen, [row.top_logprobs for row in self.rows])
        self.ids = torch.tensor(chosen, device=self.device).unsqueeze(1)
        if self.penalties is not None:
            self.penalties.count(self.ids.squeeze(1).clamp(min=0))
        rows = self.rows
        chunks = [
            row.take(token, one) if token != NOT_FINITE else row.broken(_no_scores())
            for row, token, one in zip(rows, chosen, scored, strict=True)
        ]
        self.keep([at for at, chunk in enumerate(chunks) if chunk.finish is None and chunk.error is None])
        return list(zip(rows, chunks, strict=True))

    def _part(self, scores: Tensor) -> Tensor:
        """From now on each row goes its own way. Returns the scores for each of them."""
        self.is_reading = False
        if len(self.readers) == len(self.rows):
            return scores
        index = torch.tensor(self._read_by, device=self.device)
        self.gaps = [self.gaps[at] for at in self._read_by]
        self._select(index)
        self._recompose()
        return scores[index]

    @torch.inference_mode()
    def join(self, other: "Batch") -> None:
        """Take over the rows of another plain batch; both have read their prompts."""
        width = max(self.read, other.read)
        for batch in (self, other):
            batch._widen(width - batch.read)
        layers: list[tuple[Any, Any]] = list(zip(self.cache.layers, other.cache.layers, strict=True))
        for mine, theirs in layers:
            mine.keys = torch.cat([mine.keys, theirs.keys])
            mine.values = torch.cat([mine.values, theirs.values])
        self.rows, self.gaps = self.rows + other.rows, self.gaps + other.gaps
        self.ids = torch.cat([self.ids, other.ids])
        self._recompose()

    @torch.inference_mode()
    def keep(self, kept: list[int]) -> None:
        """Only the rows at these places stay."""
        if len(kept) == len(self.rows):
            return
        self.rows = [self.rows[at] for at in kept]
        if self.is_reading:
            kept = list(dict.fromkeys(self._read_by[at] for at in kept))
            self.readers, self._read_by = readers_of(self.rows)
        if self.rows:
            index = torch.tensor(kept, device=self.device)
            self.gaps = [self.gaps[at] for at in kept]
            self.ids = self.ids[index]
            self._select(index)
            if min(self.gaps) and self.is_plain and not self.is_reading:
                self._widen(-min(self.gaps))
            self._recompose()

    def _select(self, index: Tensor) -> None:
        """Only these rows of what was read, in this order; a row may come several times."""
        self.cache.batch_select_indices(index)

    def _widen(self, columns: int) -> None:
        """More columns of padding before all rows, or fewer."""
        layers: list[Any] = self.cache.layers if columns else []
        for layer in layers:
            layer.keys = functional.pad(layer.keys, (0, 0, columns, 0))
            layer.values = functional.pad(layer.values, (0, 0, columns, 0))
        self.read += columns
        self.gaps = [gap + columns for gap in self.gaps]

    def _forward(self, ids: Tensor) -> Tensor:
        """Scores of the last column, of shape (rows, vocabulary)."""
        end = self.read + ids.shape[1]
        columns = torch.arange(end, device=self.device).unsqueeze(0)
        output = self.model(
            input_ids=ids,
            # A mask costs time in every layer; without padding there is nothing to mask.
            attention_mask=(columns >= self._gaps).long() if any(self.gaps) else None,
            position_ids=(columns[:, self.read :] - self._gaps).clamp(min=0),
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self.read = end
        scores: Tensor = output.logits[:, -1]
        return scores

    def _choose(self, scores: Tensor) -> list[int]:
        if self.penalties is None and any(row.tally for row in self.rows):
            tallies = [row.tally for row in self.rows]
            self.penalties = Penalties(tallies, vocabulary=scores.shape[-1], device=self.device)
        changed = scores if self.penalties is None else self.penalties.apply(scores)
        changed = hold_to(changed, [row.opening for row in self.rows])
        return choose(changed, [row.sampler for row in self.rows])

    def _recompose(self) -> None:
        self._gaps = torch.tensor(self.gaps, device=self.device).unsqueeze(1)
        self.stacks = stack_rows([row.adapter for row in (self.readers if self.is_reading else self.rows)])
        self.penalties = None  # made at the next choice


def readers_of(rows: Sequence[Row]) -> tuple[list[Row], list[int]]:
    """One row for each prompt with its adapter, and for each row the place of the one that reads for it."""
    found: dict[tuple[int, tuple[int, ...]], int] = {}
    read_by = [found.setdefault((id(row.adapter), tuple(row.prompt_ids)), len(found)) for row in rows]
    return [rows[read_by.index(at)] for at in range(len(found))], read_by


def _no_scores() -> TrainerError:
    return TrainerError("diverged", "The model gave no finite scores.", "Choose another number format.")


def places(rows: Sequence[Row], wanted: Callable[[Row], bool]) -> list[int]:
    """Where the wanted rows stand."""
    return [at for at, row in enumerate(rows) if wanted(row)]
