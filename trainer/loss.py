"""Chunked cross entropy: the output head runs only at trained tokens, and full logits are never materialised."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from trainer.micro_batch import MicroBatch

MAX_LOGITS = 1 << 23  # elements of the largest logits chunk: 32 MB in float32


@dataclass(frozen=True)
class Head:
    """An output head. weight: (vocabulary, hidden). Logits are multiplied by `scale`, then soft-capped to ±softcap."""

    weight: Tensor
    bias: Tensor | None = None
    scale: float = 1.0
    softcap: float = 0.0

    def logits(self, hidden: Tensor) -> Tensor:
        """hidden: (n, hidden) -> (n, vocabulary), float32."""
        logits = torch.nn.functional.linear(hidden, self.weight, self.bias).float()
        if self.scale != 1.0:
            logits *= self.scale
        return logits.div_(self.softcap).tanh_() * self.softcap if self.softcap else logits

    @property
    def is_trainable(self) -> bool:
        return self.weight.requires_grad or (self.bias is not None and self.bias.requires_grad)

    def frozen_copy(self) -> "Head":
        """A copy that later training does not change."""
        if not self.is_trainable:
            return self
        bias = self.bias.detach().clone() if self.bias is not None else None
        return Head(self.weight.detach().clone(), bias, self.scale, self.softcap)

    def chunk_size(self) -> int:
        """Rows of hidden states whose logits are computed at once."""
        return max(1, MAX_LOGITS // self.weight.shape[0])


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Cross entropy in chunks. The forward pass also computes the gradient, so no logits outlive their chunk.

    After Cut Your Losses (Wijmans et al. 2024, arxiv.org/abs/2411.09009), here in plain torch.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        labels: Tensor,
        head: Head,
        count_correct: bool,  # noqa: FBT001 - autograd passes arguments by position
    ) -> tuple[Tensor, Tensor]:
        losses = torch.empty(len(labels), dtype=torch.float32, device=hidden.device)
        correct = torch.zeros((), dtype=torch.long, device=hidden.device)
        gradient = torch.empty_like(hidden) if hidden.requires_grad else None
        size = head.chunk_size()
        for start in range(0, len(labels), size):
            chunk, targets = hidden[start : start + size], labels[start : start + size]
            # One name for logits, log probabilities and gradient: each is freed as soon as the next one is there.
            scores = head.logits(chunk)
            if count_correct:
                correct += _count_correct(scores, targets)
            softcap_slope = (scores / head.softcap).square_().neg_().add_(1) if head.softcap else None
            scores = scores.log_softmax(dim=-1)
            target_logprobs = scores.gather(1, targets[:, None])
            losses[start : start + size] = target_logprobs.squeeze(1).neg()
            if gradient is not None:  # softmax - one-hot
                scores.exp_().scatter_add_(1, targets[:, None], torch.full_like(target_logprobs, -1.0))
                if softcap_slope is not None:
                    scores *= softcap_slope
                if head.scale != 1.0:
                    scores *= head.scale
                gradient[start : start + size] = scores.to(hidden.dtype) @ head.weight
        ctx.save_for_backward(gradient)
        ctx.mark_non_differentiable(correct)
        return losses, correct

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, None, None, None]:
        (gradient,) = ctx.saved_tensors
        # Multiplied in float32 and rounded once: 1 / units in bfloat16 is up to 0.3 % off, the same way in every pass.
        return torch.mul(gradient, gradients[0][:, None], out=torch.empty_like(gradient)), None, None, None


def token_losses(hidden: Tensor, batch: MicroBatch, head: Head) -> Tensor:
    """-log p of each trained token of the batch. hidden: (rows, width, hidden) -> (trained tokens,), float32."""
    return _losses_and_correct(hidden, batch, head, count_correct=False)[0]


def loss_and_correct(hidden: Tensor, batch: MicroBatch, head: Head) -> tuple[Tensor, Tensor]:
    """The summed -log p of the batch's trained tokens, and how many of them are the model's top-1 prediction.

    hidden: (rows, width, hidden) -> two scalars, float32 and long.
    """
    losses, correct = _losses_and_correct(hidden, batch, head, count_correct=True)
    return losses.sum(), correct


def _losses_and_correct(hidden: Tensor, batch: MicroBatch, head: Head, *, count_correct: bool) -> tuple[Tensor, Tensor]:
    """The loss of each trained token, and, if asked for, the number of correct top-1 predictions."""
    chosen = hidden.flatten(0, 1).index_select(0, batch.positions)
    if head.is_trainable:
        return _with_trainable_head(chosen, batch.labels, head, count_correct=count_correct)
    result: tuple[Tensor, Tensor]
    result = _ChunkedCrossEntropy.apply(chosen, batch.labels, head, count_correct)  # type: ignore[no-untyped-call]
    return result


def _with_trainable_head(hidden: Tensor, labels: Tensor, head: Head, *, count_correct: bool) -> tuple[Tensor, Tensor]:
    """The same for a head that is trained too. Its gradient needs the logits, which are recomputed chunk by chunk."""

    def of_chunk(chunk: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        logits = head.logits(chunk)
        losses = cross_entropy(logits, targets, reduction="none")
        if not count_correct:
            return losses, torch.zeros((), dtype=torch.long, device=logits.device)
        # The recomputation in the backward pass stops before this: no gradient needs it.
        return losses, _count_correct(logits, targets)

    size = head.chunk_size()
    chunks = [slice(start, start + size) for start in range(0, len(labels), size)]
    results = [checkpoint(of_chunk, hidden[one], labels[one], use_reentrant=False) for one in chunks]
    return torch.cat([losses for losses, _ in results]), torch.stack([correct for _, correct in results]).sum()


def _count_correct(logits: Tensor, targets: Tensor) -> Tensor:
    """How many targets have the highest logit. Of equal ones, common in 16 bits, the first one counts."""
    logits = logits.detach()
    # On a CPU numpy's argmax takes a seventh of the time of torch's.
    best = torch.from_numpy(logits.numpy().argmax(axis=-1)) if logits.is_cpu else logits.argmax(dim=-1)
    return (best == targets).sum()


def sequence_logprobs(hidden: Tensor, batch: MicroBatch, head: Head) -> Tensor:
    """The summed log p of each sequence's trained tokens. hidden: (rows, width, hidden) -> (sequences,), float32."""
    losses = token_losses(hidden, batch, head)
    return -torch.stack([row.sum() for row in torch.split(losses, [item.trained_tokens for item in batch.items])])
