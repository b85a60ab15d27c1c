"""A batch of rows generated together: prompts are prefilled in chunks, then each step adds one token to each row."""

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
from trainer.opening import mask_logits
from trainer.penalties import Penalties
from trainer.sampling import NOT_FINITE, choose_tokens
from trainer.stacked_lora import ActiveAdapters, OutputChange, stack_adapters

PREFILL_TOKENS = 512  # per row and step, so that a long prompt delays neither other batches nor a stop


class Batch:
    """Rows of different length, left-padded, with their KV cache.

    Rows with the same prompt and adapter are prefilled once. A finished row leaves the batch, so the others no longer
    pay for it. Batches that are past their prefill can be joined.
    """

    def __init__(self, model: Any, rows: list[Row], *, device: torch.device) -> None:
        self.model = model
        self.rows = rows
        self.prefill_rows, self._prefill_index = distinct_prompts(
            rows
        )  # one per distinct prompt: tensor rows during prefill
        self.device = device
        self.cache: Any = DynamicCache(config=model.config)
        width = max(len(row.prompt_ids) for row in rows)
        self.cached = 0  # columns in the KV cache
        self.left_padding = [width - len(row.prompt_ids) for row in self.prefill_rows]
        padded = [
            [0] * gap + list(row.prompt_ids) for gap, row in zip(self.left_padding, self.prefill_rows, strict=True)
        ]
        self.ids = torch.tensor(padded, device=device)  # columns still to be fed to the model
        self.is_prefilling = True  # until each row has its first token
        self.penalties: Penalties | None = None
        self.changes: dict[str, OutputChange] = {}
        self._rebuild()

    @property
    def is_plain(self) -> bool:
        """Whether every layer caches the keys and values of all columns: only such caches can be joined or trimmed."""
        return all(type(layer) is DynamicLayer and layer.is_initialized for layer in self.cache.layers)

    @torch.inference_mode()
    def step(self, active_adapters: ActiveAdapters) -> list[tuple[Row, Chunk]]:
        """One forward pass: a chunk of the prompts (returns nothing yet), or one token for each row."""
        piece, self.ids = self.ids[:, :PREFILL_TOKENS], self.ids[:, PREFILL_TOKENS:]
        with active_adapters.using(self.changes):
            logits = self._forward(piece)
        if self.ids.shape[1]:
            return []
        if self.is_prefilling:
            logits = self._expand_prefill(logits)
        chosen = self._choose_tokens(logits)
        scored = score_tokens(logits, chosen, [row.top_logprobs for row in self.rows])
        self.ids = torch.tensor(chosen, device=self.device).unsqueeze(1)
        if self.penalties is not None:
            self.penalties.count(self.ids.squeeze(1).clamp(min=0))
        rows = self.rows
        chunks = [
            row.take(token, one) if token != NOT_FINITE else row.broken(_no_logits())
            for row, token, one in zip(rows, chosen, scored, strict=True)
        ]
        self.keep([at for at, chunk in enumerate(chunks) if chunk.finish is None and chunk.error is None])
        return list(zip(rows, chunks, strict=True))

    def _expand_prefill(self, logits: Tensor) -> Tensor:
        """End the prefill: from one tensor row per distinct prompt to one per row. Returns the logits of each row."""
        self.is_prefilling = False
        if len(self.prefill_rows) == len(self.rows):
            return logits
        index = torch.tensor(self._prefill_index, device=self.device)
        self.left_padding = [self.left_padding[at] for at in self._prefill_index]
        self._select(index)
        self._rebuild()
        return logits[index]

    @torch.inference_mode()
    def join(self, other: "Batch") -> None:
        """Take over the rows of another plain batch; both are past their prefill."""
        width = max(self.cached, other.cached)
        for batch in (self, other):
            batch._pad_left(width - batch.cached)
        layers: list[tuple[Any, Any]] = list(zip(self.cache.layers, other.cache.layers, strict=True))
        for mine, theirs in layers:
            mine.keys = torch.cat([mine.keys, theirs.keys])
            mine.values = torch.cat([mine.values, theirs.values])
        self.rows, self.left_padding = self.rows + other.rows, self.left_padding + other.left_padding
        self.ids = torch.cat([self.ids, other.ids])
        self._rebuild()

    @torch.inference_mode()
    def keep(self, kept: list[int]) -> None:
        """Drop all rows but those at these indices."""
        if len(kept) == len(self.rows):
            return
        self.rows = [self.rows[at] for at in kept]
        if self.is_prefilling:
            kept = list(dict.fromkeys(self._prefill_index[at] for at in kept))
            self.prefill_rows, self._prefill_index = distinct_prompts(self.rows)
        if self.rows:
            index = torch.tensor(kept, device=self.device)
            self.left_padding = [self.left_padding[at] for at in kept]
            self.ids = self.ids[index]
            self._select(index)
            if min(self.left_padding) and self.is_plain and not self.is_prefilling:
                self._pad_left(-min(self.left_padding))
            self._rebuild()

    def _select(self, index: Tensor) -> None:
        """Select cache rows in this order; one may be repeated."""
        self.cache.batch_select_indices(index)

    def _pad_left(self, columns: int) -> None:
        """Add columns of left padding to all rows, or remove them if negative."""
        layers: list[Any] = self.cache.layers if columns else []
        for layer in layers:
            layer.keys = functional.pad(layer.keys, (0, 0, columns, 0))
            layer.values = functional.pad(layer.values, (0, 0, columns, 0))
        self.cached += columns
        self.left_padding = [gap + columns for gap in self.left_padding]

    def _forward(self, ids: Tensor) -> Tensor:
        """Logits of the last column, (rows, vocabulary)."""
        end = self.cached + ids.shape[1]
        columns = torch.arange(end, device=self.device).unsqueeze(0)
        output = self.model(
            input_ids=ids,
            # A mask costs time in every layer, and without padding there is nothing to mask.
            attention_mask=(columns >= self._padding_column).long() if any(self.left_padding) else None,
            position_ids=(columns[:, self.cached :] - self._padding_column).clamp(min=0),
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self.cached = end
        logits: Tensor = output.logits[:, -1]
        return logits

    def _choose_tokens(self, logits: Tensor) -> list[int]:
        if self.penalties is None and any(row.token_counts for row in self.rows):
            counters = [row.token_counts for row in self.rows]
            self.penalties = Penalties(counters, vocabulary=logits.shape[-1], device=self.device)
        adjusted = logits if self.penalties is None else self.penalties.apply(logits)
        adjusted = mask_logits(adjusted, [row.opening for row in self.rows])
        return choose_tokens(adjusted, [row.sampler for row in self.rows])

    def _rebuild(self) -> None:
        self._padding_column = torch.tensor(self.left_padding, device=self.device).unsqueeze(1)
        self.changes = stack_adapters([row.adapter for row in (self.prefill_rows if self.is_prefilling else self.rows)])
        self.penalties = None  # built when needed


def distinct_prompts(rows: Sequence[Row]) -> tuple[list[Row], list[int]]:
    """One row per distinct prompt and adapter, and for each row the index of its representative."""
    found: dict[tuple[int, tuple[int, ...]], int] = {}
    index = [found.setdefault((id(row.adapter), tuple(row.prompt_ids)), len(found)) for row in rows]
    return [rows[index.index(at)] for at in range(len(found))], index


def _no_logits() -> TrainerError:
    return TrainerError("diverged", "The model's logits are not finite.", "Choose another dtype.")


def indices_of(rows: Sequence[Row], wanted: Callable[[Row], bool]) -> list[int]:
    """Indices of the rows that are wanted."""
    return [at for at, row in enumerate(rows) if wanted(row)]
