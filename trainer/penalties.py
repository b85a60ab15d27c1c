"""Presence, frequency and repetition penalties, and logit biases."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from trainer.errors import TrainerError


@dataclass(frozen=True, kw_only=True)
class PenaltyParams:
    """One row's parameters. `presence` is subtracted once from the logits of tokens in the answer, `frequency` per
    occurrence.

    `repetition` divides the logit of each token of prompt and answer, or multiplies it if negative (CTRL, Keskar et
    al. 2019, arXiv:1909.05858, section 4.1). `bias` is added to the logits of single tokens.
    """

    presence: float = 0.0
    frequency: float = 0.0
    repetition: float = 1.0
    bias: Mapping[int, float] = field(default_factory=dict)

    @property
    def is_empty(self) -> bool:
        return not (self.presence or self.frequency or self.bias) and self.repetition == 1.0

    def validate(self, vocabulary: int) -> None:
        """Raise TrainerError if a value is out of range."""
        values = (self.presence, self.frequency, self.repetition, *self.bias.values())
        if not all(map(math.isfinite, values)) or self.repetition <= 0:
            raise TrainerError("user_config", "The penalties are out of range.", "Use a repetition_penalty above 0.")
        if unknown := [token for token in self.bias if not 0 <= token < vocabulary]:
            raise TrainerError(
                "user_config",
                f"logit_bias names the token {unknown[0]}; the model has {vocabulary:,} tokens.",
                "Use its own token ids.",
            )


@dataclass
class TokenCounts:
    """How often a row has generated each token, and which tokens are in its prompt. Moves with the row."""

    params: PenaltyParams
    prompt_ids: Sequence[int]
    counts: Tensor | None = None  # (vocabulary,)
    prompt: Tensor | None = None  # (vocabulary,), bool

    def start(self, vocabulary: int, device: torch.device) -> tuple[Tensor, Tensor]:
        if self.counts is None or self.prompt is None:
            self.counts = torch.zeros(vocabulary, device=device)
            self.prompt = torch.zeros(vocabulary, dtype=torch.bool, device=device)
            self.prompt[torch.tensor(self.prompt_ids, device=device)] = True
        return self.counts, self.prompt


class Penalties:
    """The penalties of a batch's rows as tensors; rebuilt when the rows change."""

    def __init__(self, counters: Sequence[TokenCounts | None], *, vocabulary: int, device: torch.device) -> None:
        penalised = [(row, counter) for row, counter in enumerate(counters) if counter is not None]
        params = [counter.params for _, counter in penalised]
        started = [counter.start(vocabulary, device) for _, counter in penalised]
        self.rows = torch.tensor([row for row, _ in penalised], device=device)
        self.counts = torch.stack([counts for counts, _ in started])
        self.prompt = torch.stack([prompt for _, prompt in started])
        for (_, counter), counts in zip(penalised, self.counts, strict=True):
            counter.counts = counts  # a view, so that the row keeps its counts when the batch changes
        values = torch.tensor([[one.presence, one.frequency, one.repetition] for one in params], device=device).float()
        self.presence, self.frequency, self.repetition = values.unsqueeze(-1).unbind(1)
        self.repeats = any(one.repetition != 1.0 for one in params)
        biased = [(at, token, bias) for at, one in enumerate(params) for token, bias in one.bias.items()]
        indices = torch.tensor([[at, token] for at, token, _ in biased], device=device)
        self.biased = indices.unbind(1) if biased else None
        self.bias = torch.tensor([bias for *_, bias in biased], dtype=torch.float32, device=device)

    def apply(self, scores: Tensor) -> Tensor:
        """The penalised logits of all rows, (rows, vocabulary), in float32."""
        scores = scores.float()
        rows = scores[self.rows]
        generated = self.counts > 0
        if self.repeats:
            repeated = torch.where(rows > 0, rows / self.repetition, rows * self.repetition)
            rows = torch.where(generated | self.prompt, repeated, rows)
        rows = rows - self.frequency * self.counts - self.presence * generated
        if self.biased is not None:
            rows.index_put_(self.biased, self.bias, accumulate=True)
        return scores.index_copy(0, self.rows, rows)

    def count(self, chosen: Tensor) -> None:
        """Count each row's next token. chosen: (rows,)."""
        tokens = chosen[self.rows].unsqueeze(1)
        self.counts.scatter_add_(1, tokens, torch.ones_like(tokens, dtype=self.counts.dtype))
