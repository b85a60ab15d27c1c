"""Noise on the embeddings in training: NEFTune (Jain et al. 2023, arxiv.org/abs/2310.05914)."""

import math
from typing import Any

import torch
from torch import Tensor, nn


class Neftune:
    """Uniform noise of alpha / sqrt(length * width) at most on what the embeddings give out in training.

    It comes from torch's own generator, which every step seeds anew: a resumed run has the same.
    """

    def __init__(self, embeddings: nn.Module, alpha: float) -> None:
        self.lengths: tuple[int, ...] = ()  # of the packed rows that come next
        self._alpha = alpha
        embeddings.register_forward_hook(self._add)

    def _add(self, embeddings: nn.Module, _given: tuple[Any, ...], states: Tensor) -> Tensor | None:
        if not embeddings.training:
            return None
        noise = torch.empty_like(states).uniform_(-self._alpha, self._alpha)
        if not self.lengths:
            return states + noise / math.sqrt(states.shape[-2] * states.shape[-1])
        lengths = torch.tensor(self.lengths, device=states.device)
        reach = (lengths * states.shape[-1]).rsqrt().repeat_interleave(lengths)
        return states + noise * reach[:, None].to(states.dtype)
