"""Which token comes next: greedy, or drawn with temperature and top_p from each row's own random numbers."""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from trainer.errors import TrainerError

NUCLEUS_TRY = 1024  # the nucleus nearly always lies among so many; sorting the whole vocabulary costs milliseconds


@dataclass
class Sampler:
    """One row's way to choose. The same seed and the same scores give the same tokens, on every device."""

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    _random: torch.Generator = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0 and 0 < self.top_p <= 1):
            raise TrainerError("user_config", "The sampling values are out of range.", "Use top_p above 0 and up to 1.")
        self._random = torch.Generator()
        if self.seed is None:
            self._random.seed()
        else:
            self._random.manual_seed(self.seed)

    def choose(self, scores: Tensor) -> int:
        """The next token from one row's scores (logits) of shape (vocabulary,)."""
        if self.temperature == 0:
            return int(scores.argmax())
        chances = torch.softmax(scores.float().cpu() / self.temperature, dim=-1)
        if not bool(torch.isfinite(chances).all()):
            raise TrainerError("internal", "The model gave no finite scores.", "Choose another number format.")
        if self.top_p < 1:
            return self._from_nucleus(chances)
        return int(torch.multinomial(chances, 1, generator=self._random))

    def _from_nucleus(self, chances: Tensor) -> int:
        """From the smallest set of likeliest tokens that holds `top_p` (Holtzman et al. 2019, arXiv:1904.09751)."""
        values, tokens = chances.topk(min(NUCLEUS_TRY, chances.numel()))
        if float(values.sum()) < self.top_p:
            values, tokens = chances.sort(descending=True)
        before = values.cumsum(0) - values
        kept = values.where(before < self.top_p, 0.0)
        return int(tokens[torch.multinomial(kept, 1, generator=self._random)])
