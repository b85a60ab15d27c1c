"""Log probabilities of generated tokens and of their most likely alternatives."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class TokenLogprobs:
    """A token's log probability, and the most likely tokens at its position with theirs.

    They are the model's own: before temperature, top_p and penalties.
    """

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


def score_tokens(scores: Tensor, chosen: Sequence[int], wanted: Sequence[int | None]) -> list[TokenLogprobs | None]:
    """Per row of logits (rows, vocabulary): its chosen token and `wanted` top tokens; None if it wants no logprobs."""
    found: list[TokenLogprobs | None] = [None] * len(wanted)
    asking = [row for row, count in enumerate(wanted) if count is not None]
    if not asking:
        return found
    most = min(max(wanted[row] or 0 for row in asking), scores.shape[-1])
    logprobs = scores[torch.tensor(asking, device=scores.device)].float().log_softmax(dim=-1)
    own = logprobs.gather(1, torch.tensor([[chosen[row]] for row in asking], device=scores.device))
    values, tokens = logprobs.topk(most, dim=-1)
    # One tensor, so one device synchronisation; float64 holds token ids exactly.
    table = torch.cat([own.double(), values.double(), tokens.double()], dim=1).tolist()
    for row, (logprob, *rest) in zip(asking, table, strict=True):
        pairs = list(zip(map(int, rest[most:]), rest[:most], strict=True))
        found[row] = TokenLogprobs(chosen[row], logprob, tuple(pairs[: wanted[row]]))
    return found
