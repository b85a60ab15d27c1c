"""Scores changed before a token is chosen: by what the row has said already, and by what its asker wants said."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from trainer.errors import TrainerError


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """One row's. `presence` and `frequency` are taken off the scores of tokens the answer has, once and per time.

    `repetition` divides the score of each token of prompt and answer, or multiplies it where it is below 0 (CTRL,
    Keskar et al. 2019, arXiv:1909.05858, section 4.1). `bias` is added to the scores of single tokens.
    """

    presence: float = 0.0
    frequency: float = 0.0
    repetition: float = 1.0
    bias: Mapping[int, float] = field(default_factory=dict)

    @property
    def is_empty(self) -> bool:
        return not (self.presence or self.frequency or self.bias) and self.repetition == 1.0

    def require_sound(self, vocabulary: int) -> None:
        """Raise TrainerError unless the model can do it."""
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
class Tally:
    """How often a row has said each token, and which tokens stand in its prompt; it moves along with the row."""

    wishes: Wishes
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
    """The wishes of a batch's rows as tensors, for as long as the batch has these rows."""

    def __init__(self, tallies: Sequence[Tally | None], *, vocabulary: int, device: torch.device) -> None:
        there = [(row, tally) for row, tally in enumerate(tallies) if tally is not None]
        wishes = [tally.wishes for _, tally in there]
        begun = [tally.start(vocabulary, device) for _, tally in there]
        self.rows = torch.tensor([row for row, _ in there], device=device)
        self.counts = torch.stack([counts for counts, _ in begun])
        self.prompt = torch.stack([prompt for _, prompt in begun])
        for (_, tally), counts in zip(there, self.counts, strict=True):
            tally.counts = counts  # a view: what is counted here stays with the row
        values = torch.tensor([[one.presence, one.frequency, one.repetition] for one in wishes], device=device).float()
        self.presence, self.frequency, self.repetition = values.unsqueeze(-1).unbind(1)
        self.repeats = any(one.repetition != 1.0 for one in wishes)
        biased = [(at, token, bias) for at, one in enumerate(wishes) for token, bias in one.bias.items()]
        places = torch.tensor([[at, token] for at, token, _ in biased], device=device)
        self.biased = places.unbind(1) if biased else None
        self.bias = torch.tensor([bias for *_, bias in biased], dtype=torch.float32, device=device)

    def apply(self, scores: Tensor) -> Tensor:
        """The scores of all rows, (rows, vocabulary), in float32."""
        scores = scores.float()
        mine = scores[self.rows]
        said = self.counts > 0
        if self.repeats:
            pressed = torch.where(mine > 0, mine / self.repetition, mine * self.repetition)
            mine = torch.where(said | self.prompt, pressed, mine)
        mine = mine - self.frequency * self.counts - self.presence * said
        if self.biased is not None:
            mine.index_put_(self.biased, self.bias, accumulate=True)
        return scores.index_copy(0, self.rows, mine)

    def count(self, chosen: Tensor) -> None:
        """`chosen` of shape (rows,): what each row of the batch says next."""
        mine = chosen[self.rows].unsqueeze(1)
        self.counts.scatter_add_(1, mine, torch.ones_like(mine, dtype=self.counts.dtype))
