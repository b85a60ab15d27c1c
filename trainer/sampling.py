"""Sampling the next token: greedy, or temperature, top_k, top_p and min_p, with a random generator per row."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from trainer.errors import TrainerError

NUCLEUS_CANDIDATES = (
    1024  # the nucleus is nearly always within this many; sorting 150,000 logits takes some 15 ms on a CPU
)
MIN_TEMPERATURE = 1e-6  # also for top_p: below it sampling is greedy in all but name, and numbers underflow
NOT_FINITE = -1


@dataclass
class Sampler:
    """One row's sampling: the same seed and logits give the same tokens, whatever else is in the batch.

    Only the `top_k` most likely tokens are candidates (0: all), and none whose probability is below `min_p` times the
    highest (Nguyen et al. 2024, arXiv:2407.01082).
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
        self._random = torch.Generator()  # on the CPU, so that every device gets the same numbers
        if self.seed is None:
            self._random.seed()
        else:
            self._random.manual_seed(self.seed)

    def next_number(self) -> float:
        """A uniform number from [0, 1) for one draw. Greedy rows consume none."""
        return float(torch.rand((), generator=self._random, dtype=torch.float64)) if self.temperature else 0.0


def choose_tokens(scores: Tensor, samplers: Sequence[Sampler]) -> list[int]:
    """Each row's next token. scores: logits (rows, vocabulary). One device synchronisation.

    NOT_FINITE for a row whose logits are not usable.
    """
    best, tokens = scores.max(dim=-1)
    if any(one.temperature for one in samplers):
        drawn, is_drawn = _draw(scores, samplers)
        tokens = torch.where(is_drawn, drawn, tokens)
    # A finite maximum rules out NaN, +inf and all -inf; some tokens may well be masked with -inf.
    chosen: list[int] = tokens.where(best.isfinite(), NOT_FINITE).tolist()
    return chosen


def _draw(scores: Tensor, samplers: Sequence[Sampler]) -> tuple[Tensor, Tensor]:
    """Sampled tokens, and which rows asked for sampling."""
    values = torch.tensor([[one.temperature, one.top_p, one.next_number()] for one in samplers], dtype=torch.float64)
    temperature, top_p, number = values.to(scores.device, non_blocking=True).unsqueeze(-1).unbind(1)
    probs = torch.softmax(scores.float() / temperature.clamp(min=MIN_TEMPERATURE).float(), dim=-1)
    if any(one.top_k for one in samplers):
        probs = _top_k_filter(probs, [one.top_k for one in samplers])
    if any(one.top_p < 1 for one in samplers):
        probs = _top_p_filter(probs, top_p.clamp(min=MIN_TEMPERATURE).float())
    if any(one.min_p for one in samplers):
        least = probs.new_tensor([[one.min_p] for one in samplers]) * probs.amax(dim=-1, keepdim=True)
        probs = probs.where(probs >= least, 0.0)
    cumulative = probs.cumsum(dim=-1, dtype=torch.float64)
    tokens = torch.searchsorted(cumulative, number * cumulative[:, -1:], right=True).clamp(max=scores.shape[-1] - 1)
    return tokens.squeeze(-1), temperature.squeeze(-1) > 0


def _top_k_filter(probs: Tensor, top_k: Sequence[int]) -> Tensor:
    """Zero all but each row's `top_k` most likely tokens (0: all) and ties with the last of them; renormalised."""
    most = min(max(top_k), probs.shape[-1])
    values = probs.topk(most, dim=-1).values
    last = torch.tensor([[min(k, most) - 1 if k else -1] for k in top_k], device=probs.device)
    least = values.gather(1, last.clamp(min=0)).where(last >= 0, 0.0)
    kept = probs.where(probs >= least, 0.0)
    return kept / kept.sum(dim=-1, keepdim=True)


def _top_p_filter(probs: Tensor, top_p: Tensor) -> Tensor:
    """Zero all but the smallest set of most likely tokens with mass `top_p` (Holtzman et al. 2019, arXiv:1904.09751).

    Ties with the last of them stay too, so that the set does not depend on how a device sorts equal values.
    """
    values = _sorted_probs(probs, top_p)
    before = values.cumsum(dim=-1) - values
    least = values.where(before < top_p, 1.0).amin(dim=-1, keepdim=True)
    return probs.where(probs >= least, 0.0)


def _sorted_probs(probs: Tensor, top_p: Tensor) -> Tensor:
    """Probabilities in descending order, enough of them to reach `top_p`."""
    if probs.device.type == "cpu":  # elsewhere this check would synchronise with the device
        values = probs.topk(min(NUCLEUS_CANDIDATES, probs.shape[-1])).values
        if bool((values.sum(dim=-1, keepdim=True) >= top_p).all()):
            return values
    return probs.sort(dim=-1, descending=True).values
