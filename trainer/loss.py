"""The loss of trained tokens alone: the output head runs only where something is learnt."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trainer.data import MicroBatch

LOGITS_AT_ONCE = 1 << 23  # values of the widest matrix here: 32 MB in float32


@dataclass(frozen=True)
class Head:
    """A frozen output head. weight: (vocabulary, hidden); its scores are scaled, then squashed to ±softcap."""

    weight: Tensor
    bias: Tensor | None = None
    scale: float = 1.0
    softcap: float = 0.0

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores in float32. hidden: (n, hidden) -> (n, vocabulary)."""
        scores = torch.nn.functional.linear(hidden, self.weight, self.bias).float()
        if self.scale != 1.0:
            scores *= self.scale
        return scores.div_(self.softcap).tanh_().mul_(self.softcap) if self.softcap else scores

    def rows_at_once(self) -> int:
        return max(1, LOGITS_AT_ONCE // self.weight.shape[0])


class _SummedLoss(torch.autograd.Function):
    """Sum of cross entropies, in chunks. The gradient is made beside the loss, so no logits outlive their chunk.

    The idea of chunked heads is that of Wijmans et al. 2024 (arxiv.org/abs/2411.09009), here in plain torch.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, labels: Tensor, head: Head) -> Tensor:
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        gradient = torch.empty_like(hidden) if hidden.requires_grad else None
        size = head.rows_at_once()
        for start in range(0, len(labels), size):
            chunk, wanted = hidden[start : start + size], labels[start : start + size]
            scores = head.logits(chunk)
            slope = (scores / head.softcap).square_().neg_().add_(1) if head.softcap else None
            scores.sub_(scores.amax(dim=-1, keepdim=True))
            right = scores.gather(1, wanted[:, None])
            mass = scores.exp_().sum(dim=-1, keepdim=True)
            total += (mass.log() - right).sum()
            if gradient is not None:
                scores.div_(mass).scatter_add_(1, wanted[:, None], torch.full_like(mass, -1.0))
                if slope is not None:
                    scores *= slope
                if head.scale != 1.0:
                    scores *= head.scale
                gradient[start : start + size] = scores.to(hidden.dtype) @ head.weight
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * gradients[0].to(gradient.dtype), None, None


def summed_loss(hidden: Tensor, batch: MicroBatch, head: Head) -> Tensor:
    """Sum over the batch's trained tokens of -log p(token). hidden: (rows, width, hidden) -> scalar, float32."""
    chosen = hidden.flatten(0, 1).index_select(0, batch.places)
    loss: Tensor = _SummedLoss.apply(chosen, batch.labels, head)  # type: ignore[no-untyped-call]
    return loss


@torch.no_grad()
def summed_hits(hidden: Tensor, batch: MicroBatch, head: Head) -> int:
    """How many of the batch's trained tokens the model would have chosen itself."""
    chosen = hidden.flatten(0, 1).index_select(0, batch.places)
    size = head.rows_at_once()
    hits = 0
    for start in range(0, len(batch.labels), size):
        best = head.logits(chosen[start : start + size]).argmax(dim=-1)
        hits += int((best == batch.labels[start : start + size]).sum())
    return hits
