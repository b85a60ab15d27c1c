"""Which token comes next: greedy, or drawn with temperature, top_k, top_p and min_p from each row's own numbers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from trainer.errors import TrainerError

NUCLEUS_TRY = 1024  # the nucleus nearly always lies among so many; on a CPU sorting 150,000 takes some 15 ms
LEAST = 1e-6  # temperature or top_p that counts: below it a draw is greedy in all but name, and numbers vanish
NOT_FINITE = -1


@dataclass
class Sampler:
    """One row's way to choose: the same seed and the same scores give the same tokens, whatever rows are beside it.

    `top_k` tokens at most are drawn from (0: any), and none whose chance is below `min_p` times that of the likeliest
    (Nguyen et al. 2024, arXiv:2407.01082).
    """

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    top_k: int = 0
    min_p: float = 0.0
    _random: torch.Generator = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0 and 0 < self.top_p <= 1):
            raise TrainerError("user_config", "The sampling values are out of range.", "Use top_p above 0 and up to 1.")
        if not (self.top_k >= 0 and 0 <= self.min_p <= 1):
            raise TrainerError("user_config", "The sampling values are out of range.", "Use min_p from 0 to 1.")
        self._random = torch.Generator()  # on the CPU, so that every device draws with the same numbers
        if self.seed is None:
            self._random.seed()
        else:
            self._random.manual_seed(self.seed)

    def next_number(self) -> float:
        """From [0, 1): what decides one draw. Greedy rows need none."""
        return float(torch.rand((), generator=self._random, dtype=torch.float64)) if self.temperature else 0.0


def choose(scores: Tensor, samplers: Sequence[Sampler]) -> list[int]:
    """Each row's next token from scores (logits) of shape (rows, vocabulary). The device is waited for once.

    NOT_FINITE for a row that has no scores to choose by.
    """
    best, tokens = scores.max(dim=-1)
    if any(one.temperature for one in samplers):
        drawn, is_drawn = _draw(scores, samplers)
        tokens = torch.where(is_drawn, drawn, tokens)
    # A finite greatest score rules out NaN, +inf and nothing but -inf; single tokens may well be masked with -inf.
    chosen: list[int] = tokens.where(best.isfinite(), NOT_FINITE).tolist()
    return chosen


def _draw(scores: Tensor, samplers: Sequence[Sampler]) -> tuple[Tensor, Tensor]:
    """Drawn tokens, and which rows wanted one drawn."""
    values = torch.tensor([[one.temperature, one.top_p, one.next_number()] for one in samplers], dtype=torch.float64)
    temperature, top_p, number = values.to(scores.device, non_blocking=True).unsqueeze(-1).unbind(1)
    chances = torch.softmax(scores.float() / temperature.clamp(min=LEAST).float(), dim=-1)
    if any(one.top_k for one in samplers):
        chances = _likely_few(chances, [one.top_k for one in samplers])
    if any(one.top_p < 1 for one in samplers):
        chances = _nucleus(chances, top_p.clamp(min=LEAST).float())
    if any(one.min_p for one in samplers):
        least = chances.new_tensor([[one.min_p] for one in samplers]) * chances.amax(dim=-1, keepdim=True)
        chances = chances.where(chances >= least, 0.0)
    reached = chances.cumsum(dim=-1, dtype=torch.float64)
    tokens = torch.searchsorted(reached, number * reached[:, -1:], right=True).clamp(max=scores.shape[-1] - 1)
    return tokens.squeeze(-1), temperature.squeeze(-1) > 0


def _likely_few(chances: Tensor, top_k: Sequence[int]) -> Tensor:
    """Only each row's `top_k` likeliest tokens (0: all), and those as likely as the last of them; they sum to 1."""
    most = min(max(top_k), chances.shape[-1])
    values = chances.topk(most, dim=-1).values
    last = torch.tensor([[min(k, most) - 1 if k else -1] for k in top_k], device=chances.device)
    least = values.gather(1, last.clamp(min=0)).where(last >= 0, 0.0)
    kept = chances.where(chances >= least, 0.0)
    return kept / kept.sum(dim=-1, keepdim=True)


def _nucleus(chances: Tensor, top_p: Tensor) -> Tensor:
    """Only the smallest set of likeliest tokens that holds `top_p` (Holtzman et al. 2019, arXiv:1904.09751).

    Tokens as likely as its last one stay too, so that the set does not hang on how a device sorts equal values.
    """
    values = _likeliest(chances, top_p)
    before = values.cumsum(dim=-1) - values
    least = values.where(before < top_p, 1.0).amin(dim=-1, keepdim=True)
    return chances.where(chances >= least, 0.0)


def _likeliest(chances: Tensor, top_p: Tensor) -> Tensor:
    """The chances from the highest down, at least as many as hold `top_p`."""
    if chances.device.type == "cpu":  # to look costs nothing here; elsewhere it would wait for the device
        values = chances.topk(min(NUCLEUS_TRY, chances.shape[-1])).values
        if bool((values.sum(dim=-1, keepdim=True) >= top_p).all()):
            return values
    return chances.sort(dim=-1, descending=True).values
