"""The loss of trained tokens alone: the output head runs only where something is learnt."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from trainer.micro_batch import MicroBatch

MAX_LOGITS = 1 << 23  # values of the widest matrix here: 32 MB in float32


@dataclass(frozen=True)
class Head:
    """An output head. weight: (vocabulary, hidden); its scores are scaled, then squashed to ±softcap."""

    weight: Tensor
    bias: Tensor | None = None
    scale: float = 1.0
    softcap: float = 0.0

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores in float32. hidden: (n, hidden) -> (n, vocabulary)."""
        scores = torch.nn.functional.linear(hidden, self.weight, self.bias).float()
        if self.scale != 1.0:
            scores *= self.scale
        return scores.div_(self.softcap).tanh_() * self.softcap if self.softcap else scores

    @property
    def is_trainable(self) -> bool:
        return self.weight.requires_grad or (self.bias is not None and self.bias.requires_grad)

    def frozen_copy(self) -> "Head":
        """This head as it scores now, whatever it learns later."""
        if not self.is_trainable:
            return self
        bias = self.bias.detach().clone() if self.bias is not None else None
        return Head(self.weight.detach().clone(), bias, self.scale, self.softcap)

    def chunk_size(self) -> int:
        return max(1, MAX_LOGITS // self.weight.shape[0])


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Cross entropies, in chunks. The gradient is made beside the loss, so no logits outlive their chunk.

    The idea of chunked heads is that of Wijmans et al. 2024 (arxiv.org/abs/2411.09009), here in plain torch.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        labels: Tensor,
        head: Head,
        counts: bool,  # noqa: FBT001 - autograd gives it by its place
    ) -> tuple[Tensor, Tensor]:
        losses = torch.empty(len(labels), dtype=torch.float32, device=hidden.device)
        hits = torch.zeros((), dtype=torch.long, device=hidden.device)
        gradient = torch.empty_like(hidden) if hidden.requires_grad else None
        size = head.chunk_size()
        for start in range(0, len(labels), size):
            chunk, wanted = hidden[start : start + size], labels[start : start + size]
            scores = head.logits(chunk)
            if counts:
                hits += _hits(scores, wanted)
            slope = (scores / head.softcap).square_().neg_().add_(1) if head.softcap else None
            scores = scores.log_softmax(dim=-1)
            right = scores.gather(1, wanted[:, None])
            losses[start : start + size] = right.squeeze(1).neg()
            if gradient is not None:
                scores.exp_().scatter_add_(1, wanted[:, None], torch.full_like(right, -1.0))
                if slope is not None:
                    scores *= slope
                if head.scale != 1.0:
                    scores *= head.scale
                gradient[start : start + size] = scores.to(hidden.dtype) @ head.weight
        ctx.save_for_backward(gradient)
        ctx.mark_non_differentiable(hits)
        return losses, hits

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * gradients[0].to(gradient.dtype)[:, None], None, None, None


def token_losses(hidden: Tensor, batch: MicroBatch, head: Head) -> Tensor:
    """-log p of each of the batch's trained tokens. hidden: (rows, width, hidden) -> (trained tokens,), float32."""
    return _scored(hidden, batch, head, counts=False)[0]


def loss_and_correct(hidden: Tensor, batch: MicroBatch, head: Head) -> tuple[Tensor, Tensor]:
    """Sum over the batch's trained tokens of -log p(token), and how many of them the model would have chosen itself.

    hidden: (rows, width, hidden) -> two scalars, float32 and long.
    """
    losses, hits = _scored(hidden, batch, head, counts=True)
    return losses.sum(), hits


def _scored(hidden: Tensor, batch: MicroBatch, head: Head, *, counts: bool) -> tuple[Tensor, Tensor]:
    """The losses of trained tokens, and the number of hits among them where it `counts`."""
    chosen = hidden.flatten(0, 1).index_select(0, batch.positions)
    if head.is_trainable:
        return _scored_by_learning_head(chosen, batch.labels, head, counts=counts)
    found: tuple[Tensor, Tensor] = _ChunkedCrossEntropy.apply(chosen, batch.labels, head, counts)  # type: ignore[no-untyped-call]
    return found


def _scored_by_learning_head(hidden: Tensor, labels: Tensor, head: Head, *, counts: bool) -> tuple[Tensor, Tensor]:
    """The same where the head learns too: its gradient needs the scores again, a chunk at a time."""

    def scored(chunk: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
        scores = head.logits(chunk)
        losses = cross_entropy(scores, wanted, reduction="none")
        # Behind all that the gradient needs: on the way back the scores are made again, and this is not reached.
        return losses, _hits(scores, wanted) if counts else torch.zeros((), dtype=torch.long, device=scores.device)

    size = head.chunk_size()
    chunks = [slice(start, start + size) for start in range(0, len(labels), size)]
    found = [checkpoint(scored, hidden[one], labels[one], use_reentrant=False) for one in chunks]
    return torch.cat([losses for losses, _ in found]), torch.stack([hits for _, hits in found]).sum()


def _hits(scores: Tensor, wanted: Tensor) -> Tensor:
    """How many of the tokens have the highest score; of equal ones, which 16 bits often are, the first is chosen."""
    scores = scores.detach()
    # On a processor numpy's takes a seventh of the time of torch's.
    best = torch.from_numpy(scores.numpy().argmax(axis=-1)) if scores.is_cpu else scores.argmax(dim=-1)
    return (best == wanted).sum()


def sequence_logprobs(hidden: Tensor, batch: MicroBatch, head: Head) -> Tensor:
    """log p of the trained tokens of each row together. hidden: (rows, width, hidden) -> (rows,), float32."""
    losses = token_losses(hidden, batch, head)
    return -torch.stack([row.sum() for row in torch.split(losses, [item.trained_tokens for item in batch.items])])
