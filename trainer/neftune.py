"""Noise on the embeddings in training: NEFTune (Jain et al. 2023, arxiv.org/abs/2310.05914)."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class Neftune:
    """Uniform noise of alpha / sqrt(length * width) at most on what the embeddings give out in training.

    It comes from torch's own generator, which every step seeds anew: a resumed run has the same.
    """

    def __init__(self, embeddings: nn.Module, alpha: float) -> None:
        self._lengths: tuple[int, ...] = ()
        self._alpha = alpha
        embeddings.register_forward_hook(self._add)

    @contextmanager
    def of(self, lengths: tuple[int, ...]) -> Iterator[None]:
        """For the pass in this block, whose packed rows have these lengths."""
        self._lengths = lengths
        try:
            yield
        finally:
            self._lengths = ()

    def _add(self, embeddings: nn.Module, _given: tuple[Any, ...], states: Tensor) -> Tensor | None:
        if not embeddings.training:
            return None
        noise = torch.empty_like(states).uniform_(-self._alpha, self._alpha)
        if not self._lengths:
            return states + noise / math.sqrt(states.shape[-2] * states.shape[-1])
        lengths = torch.tensor(self._lengths, device=states.device)
        reach = (lengths * states.shape[-1]).rsqrt().repeat_interleave(lengths)
        return states + noise * reach[:, None].to(states.dtype)
