"""What an answer must begin with, where its asker has a say: the form of a call, for instance."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Opening:
    """One of several sequences of tokens, chosen token by token as the model finds them likely; then it goes on freely.

    Where one sequence begins another, the shorter one counts.
    """

    sequences: Sequence[Sequence[int]]
    _at: int = 0

    def allowed(self) -> list[int]:
        """The tokens that may come next. Empty: any."""
        if any(len(one) == self._at for one in self.sequences):
            return []
        return sorted({one[self._at] for one in self.sequences})

    def take(self, token: int) -> None:
        """Count the token that came."""
        if self.allowed():
            self.sequences = [one for one in self.sequences if one[self._at] == token]
            self._at += 1


def hold_to(scores: Tensor, openings: Sequence[Opening | None]) -> Tensor:
    """The scores of shape (rows, vocabulary), with nothing left to rows that begin but what they may say next."""
    held = [(row, tokens) for row, one in enumerate(openings) if one is not None and (tokens := one.allowed())]
    if not held:
        return scores
    changed = scores.clone()
    for row, tokens in held:
        index = torch.tensor(tokens, device=scores.device)
        changed[row] = float("-inf")
        changed[row, index] = scores[row, index]
    return changed
