"""Rows answered together by an encoder–decoder model: an encoder reads all prompts once, then each step writes."""

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, EncoderDecoderCache

from trainer.answer_row import Row
from trainer.batch import Batch


class Seq2SeqBatch(Batch):
    """A batch whose prompts are read in one pass, padded on the right, and whose answers all begin with one token.

    Positions of an answer count from its batch's first step, so batches that began apart are never joined.
    """

    def __init__(self, model: Any, rows: list[Row], *, device: torch.device, start: int) -> None:
        super().__init__(model, rows, device=device)
        # Not made from the config, which counts the encoder's layers: this one grows with the decoder's.
        self.cache: Any = EncoderDecoderCache(DynamicCache(), DynamicCache())
        self.gaps = [0] * len(self.readers)
        self.ids = torch.full((len(self.readers), 1), start, device=device)
        self._mask: Tensor | None = None  # (rows, width) of what was read
        self._states: Tensor | None = None  # (rows, width, hidden)

    @property
    def is_plain(self) -> bool:
        return False

    def _select(self, index: Tensor) -> None:
        super()._select(index)
        if self._states is not None and self._mask is not None:
            self._states, self._mask = self._states[index], self._mask[index]

    def _forward(self, ids: Tensor) -> Tensor:
        """Scores of the last column, of shape (rows, vocabulary)."""
        if self._states is None:
            self._read()
        output = self.model(
            encoder_outputs=(self._states,),
            attention_mask=self._mask,
            decoder_input_ids=ids,
            past_key_values=self.cache,
            use_cache=True,
        )
        self.read += ids.shape[1]
        scores: Tensor = output.logits[:, -1]
        return scores

    def _read(self) -> None:
        width = max(len(row.prompt_ids) for row in self.readers)
        padded = [[*row.prompt_ids] + [0] * (width - len(row.prompt_ids)) for row in self.readers]
        read = [[1] * len(row.prompt_ids) + [0] * (width - len(row.prompt_ids)) for row in self.readers]
        self._mask = torch.tensor(read, device=self.device)
        encoder = self.model.get_encoder()
        ids = torch.tensor(padded, device=self.device)
        self._states = encoder(input_ids=ids, attention_mask=self._mask).last_hidden_state
