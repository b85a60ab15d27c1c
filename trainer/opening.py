"""Forced beginnings of an answer, such as the opening of a tool call."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Opening:
    """The answer must begin with one of these token sequences; the model chooses which, token by token.

    If one is a prefix of another, the shorter one ends the constraint.
    """

    sequences: Sequence[Sequence[int]]
    _at: int = 0

    def allowed(self) -> list[int]:
        """The tokens allowed next; empty if any is."""
        if any(len(one) == self._at for one in self.sequences):
            return []
        return sorted({one[self._at] for one in self.sequences})

    def take(self, token: int) -> None:
        """Advance past a generated token."""
        if self.allowed():
            self.sequences = [one for one in self.sequences if one[self._at] == token]
            self._at += 1


def mask_logits(scores: Tensor, openings: Sequence[Opening | None]) -> Tensor:
    """Logits (rows, vocabulary) with every token a row's opening does not allow set to -inf."""
    constrained = [(row, tokens) for row, one in enumerate(openings) if one is not None and (tokens := one.allowed())]
    if not constrained:
        return scores
    changed = scores.clone()
    for row, tokens in constrained:
        index = torch.tensor(tokens, device=scores.device)
        changed[row] = float("-inf")
        changed[row, index] = scores[row, index]
    return changed
