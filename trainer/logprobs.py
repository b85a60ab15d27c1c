"""How likely the model found what it said, and what it would have said instead."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Scored:
    """A token with the logarithm of its chance, and the likeliest tokens of its place with theirs.

    The chances are the model's own: before temperature, top_p and penalties.
    """

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


def score_tokens(scores: Tensor, chosen: Sequence[int], wanted: Sequence[int | None]) -> list[Scored | None]:
    """For each row of `scores` (rows, vocabulary) with `wanted` likeliest tokens; None: it asks for nothing."""
    found: list[Scored | None] = [None] * len(wanted)
    asking = [row for row, count in enumerate(wanted) if count is not None]
    if not asking:
        return found
    most = min(max(wanted[row] or 0 for row in asking), scores.shape[-1])
    logprobs = scores[torch.tensor(asking, device=scores.device)].float().log_softmax(dim=-1)
    own = logprobs.gather(1, torch.tensor([[chosen[row]] for row in asking], device=scores.device))
    values, tokens = logprobs.topk(most, dim=-1)
    # Token ids are exact in float64, and the device is waited for once.
    table = torch.cat([own.double(), values.double(), tokens.double()], dim=1).tolist()
    for row, (logprob, *rest) in zip(asking, table, strict=True):
        pairs = list(zip(map(int, rest[most:]), rest[:most], strict=True))
        found[row] = Scored(chosen[row], logprob, tuple(pairs[: wanted[row]]))
    return found
