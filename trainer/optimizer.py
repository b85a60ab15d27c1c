"""AdamW over the LoRA weights: float32 masters beside the fast copies that compute, clipping, and the learning rate."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from trainer.spec import OptimSpec

# float16 has no room for small gradients: they are computed this much larger there.
FLOAT16_SCALE = 1024.0


class MasterAdamW:
    """AdamW (Loshchilov & Hutter 2019, arxiv.org/abs/1711.05101) on float32 masters of `weights`.

    The model computes in its own format, which is fast but cannot hold an update of a thousandth; the masters can.
    All masters lie in one flat tensor, so a step is one operation however many layers there are.
    """

    def __init__(self, weights: Mapping[str, torch.nn.Parameter], spec: OptimSpec) -> None:
        self._weights = dict(weights)
        self._spec = spec
        flat = torch.cat([weight.detach().float().flatten() for weight in self._weights.values()])
        self._flat = torch.nn.Parameter(flat)
        self._flat.grad = torch.zeros_like(flat)
        self.masters = self._views(self._flat.detach())
        self._gradients = self._views(self._flat.grad)
        self._adamw = torch.optim.AdamW([self._flat], lr=0.0, weight_decay=spec.weight_decay, fused=True)
        half = any(weight.dtype == torch.float16 for weight in self._weights.values())
        self.loss_scale = FLOAT16_SCALE if half else 1.0

    def collect(self) -> None:
        """Add the gradients of one pass, in float32, and drop them from the model."""
        for name, weight in self._weights.items():
            if weight.grad is not None:
                self._gradients[name].add_(weight.grad)
                weight.grad = None

    def discard(self) -> None:
        """Forget what was collected."""
        for weight in self._weights.values():
            weight.grad = None
        assert_grad(self._flat).zero_()

    def norm(self) -> float:
        """Length of the collected gradient, before clipping; this also takes the loss scale out."""
        gradient = assert_grad(self._flat)
        if self.loss_scale != 1.0:
            gradient /= self.loss_scale
        return float(gradient.norm())

    def step(self, *, learning_rate: float, norm: float) -> None:
        """Clip to max_grad_norm, update the masters, and hand the model its new weights."""
        if 0 < self._spec.max_grad_norm < norm:
            assert_grad(self._flat).mul_(self._spec.max_grad_norm / norm)
        self._adamw.param_groups[0]["lr"] = learning_rate
        self._adamw.step()
        self.publish()
        assert_grad(self._flat).zero_()

    @torch.no_grad()
    def publish(self) -> None:
        for name, weight in self._weights.items():
            weight.copy_(self.masters[name])

    def masters_on_cpu(self) -> dict[str, Tensor]:
        """The weights in float32, each in memory of its own, as files want them."""
        return {name: value.cpu().clone() for name, value in self.masters.items()}

    def state(self) -> dict[str, Tensor]:
        """AdamW's memory, to be saved beside the masters."""
        return {name: torch.as_tensor(value).cpu() for name, value in self._adamw.state.get(self._flat, {}).items()}

    def load(self, masters: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
        """Go on from saved masters and state. Raises KeyError or RuntimeError when they are of other weights."""
        if masters.keys() != self.masters.keys():
            raise KeyError("other weights than these")
        for name, value in self.masters.items():
            value.copy_(masters[name])
        if state:
            device = self._flat.device
            self._adamw.state[self._flat] = {name: value.clone().to(device) for name, value in state.items()}
        self.publish()

    def _views(self, flat: Tensor) -> dict[str, Tensor]:
        sizes = [weight.numel() for weight in self._weights.values()]
        pieces = torch.split(flat, sizes)
        return {name: piece.view_as(self._weights[name]) for name, piece in zip(self._weights, pieces, strict=True)}


def assert_grad(weight: Tensor) -> Tensor:
    """The gradient, which is there from the start."""
    if weight.grad is None:
        raise RuntimeError("the gradient buffer is gone")
    return weight.grad


def learning_rate_at(step: int, of: int, spec: OptimSpec) -> float:
    """The learning rate of step number `step` (from 0): warm-up from zero, then constant, linear or cosine to zero."""
    warmup = math.ceil(of * spec.warmup_ratio)
    if step < warmup:
        return spec.learning_rate * (step + 1) / warmup
    done = (step - warmup) / max(1, of - warmup)
    if spec.schedule == "linear":
        return spec.learning_rate * (1 - done)
    if spec.schedule == "cosine":
        return spec.learning_rate * (1 + math.cos(math.pi * done)) / 2
    return spec.learning_rate
