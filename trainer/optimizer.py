"""AdamW over the LoRA weights: float32 masters beside the fast copies that compute, clipping, and the learning rate."""

import math
import warnings
from collections.abc import Iterator, Mapping
from itertools import accumulate, groupby
from typing import Any, NamedTuple

import torch
from bitsandbytes.optim.adamw import AdamW8bit, PagedAdamW8bit, PagedAdamW32bit
from bitsandbytes.optim.optimizer import Optimizer8bit
from torch import Tensor

from trainer.estimate import ADAM_BYTES
from trainer.spec import OptimSpec

# float16 has no room for small gradients: they are computed this much larger there.
FLOAT16_LOSS_SCALE = 1024.0
# A model has hundreds of small weights, and on a GPU each operation costs more to begin than to do. torch's optimizers
# take lists of tensors at once for that (`torch._foreach_...`), and so are gradients collected and weights handed over,
# so many values at a time.
FOREACH_ELEMENTS = 1 << 22


class GroupOptions(NamedTuple):
    """How some weights learn: their learning rate's factor, and their pull towards zero."""

    ratio: float
    decay: float


class MasterAdamW:
    """AdamW (Loshchilov & Hutter 2019, arxiv.org/abs/1711.05101) on float32 masters of `weights`.

    The model computes in its own format, which is fast but cannot hold an update of a thousandth; the masters can.
    All masters lie in one flat tensor, those that learn alike side by side, so a step is one or two operations however
    many layers there are.
    """

    def __init__(self, weights: Mapping[str, torch.nn.Parameter], spec: OptimSpec) -> None:
        self._spec = spec
        paces = {name: self._group_options(name, weight) for name, weight in weights.items()}
        named = {
            pace: list(names) for pace, names in groupby(sorted(weights, key=paces.__getitem__), paces.__getitem__)
        }
        self._weights = {name: weights[name] for names in named.values() for name in names}
        flat = torch.cat([weight.detach().float().flatten() for weight in self._weights.values()])
        self._flat, self._gradient = flat, torch.zeros_like(flat)
        self.masters, self._gradients = self._views(flat), self._views(self._gradient)
        sizes = [sum(weights[name].numel() for name in names) for names in named.values()]
        groups = []
        for pace, part, gradient in zip(
            named, torch.split(flat, sizes), torch.split(self._gradient, sizes), strict=True
        ):
            learns = torch.nn.Parameter(part)
            learns.grad = gradient
            groups.append({"params": [learns], "weight_decay": pace.decay, "ratio": pace.ratio})
        self._adamw = _adamw(groups, spec)
        half = any(weight.dtype == torch.float16 for weight in self._weights.values())
        self.loss_scale = FLOAT16_LOSS_SCALE if half else 1.0

    def _group_options(self, name: str, weight: Tensor) -> "GroupOptions":
        """LoRA+ (Hayou et al. 2024, arxiv.org/abs/2402.12354) as PEFT has it. Only updates are pulled towards zero."""
        fast = name.endswith(".lora_B.weight") or weight.dim() == 1
        is_update = name.endswith((".lora_A.weight", ".lora_B.weight"))
        ratio = self._spec.loraplus_lr_ratio or 1.0
        return GroupOptions(ratio if fast else 1.0, self._spec.weight_decay if is_update else 0.0)

    @torch.no_grad()
    def accumulate(self) -> None:
        """Add the gradients of one pass, in float32, and drop them from the model."""
        learnt = [name for name, weight in self._weights.items() if weight.grad is not None]
        for names in self._portions(learnt):
            given = [gradient for name in names if (gradient := self._weights[name].grad) is not None]
            into = [self._gradients[name] for name in names]
            if given[0].dtype != torch.float32:  # many at once are added in one format alone, and copied from any
                wide = [torch.empty_like(one) for one in into]
                torch._foreach_copy_(wide, given)
                given = wide
            torch._foreach_add_(into, given)
            for name in names:
                self._weights[name].grad = None

    def _portions(self, names: list[str]) -> Iterator[list[str]]:
        """Group names into chunks of about `FOREACH_ELEMENTS` values: gradients of a chunk are briefly held twice."""
        before = list(accumulate((self._weights[name].numel() for name in names), initial=0))
        numbered = zip(names, before, strict=False)
        for _, some in groupby(numbered, lambda one: one[1] // FOREACH_ELEMENTS):
            yield [name for name, _ in some]

    @property
    def gradient(self) -> Tensor:
        """All that was collected, end to end."""
        return self._gradient

    def zero_grad(self) -> None:
        """Forget what was collected."""
        for weight in self._weights.values():
            weight.grad = None
        self._gradient.zero_()

    def grad_norm(self) -> float:
        """Length of the collected gradient, before clipping; this also takes the loss scale out."""
        if self.loss_scale != 1.0:
            self._gradient /= self.loss_scale
        return float(self._gradient.norm())

    def step(self, *, learning_rate: float, norm: float) -> None:
        """Clip to max_grad_norm, update the masters, and hand the model its new weights."""
        if 0 < self._spec.max_grad_norm < norm:
            self._gradient.mul_(self._spec.max_grad_norm / norm)
        for group in self._adamw.param_groups:
            group["lr"] = learning_rate * group["ratio"]
        self._adamw.step()
        self.copy_to_model()
        self._gradient.zero_()

    @torch.no_grad()
    def copy_to_model(self) -> None:
        """Hand the model the masters, in its own format."""
        torch._foreach_copy_(list(self._weights.values()), list(self.masters.values()))

    def masters_on_cpu(self) -> dict[str, Tensor]:
        """The weights in float32, each in memory of its own, as files want them."""
        return {name: value.cpu().clone() for name, value in self.masters.items()}

    def state(self) -> dict[str, Tensor]:
        """AdamW's memory, to be saved beside the masters: what it keeps for each part of them, by number and name."""
        return {
            f"{number}.{name}": _for_file(name, value)
            for number, part in enumerate(self._flat_parameters())
            for name, value in self._adamw.state.get(part, {}).items()
        }

    def _flat_parameters(self) -> list[torch.nn.Parameter]:
        """What AdamW steps on: the masters that learn alike, end to end."""
        return [group["params"][0] for group in self._adamw.param_groups]

    def is_finite(self) -> bool:
        """Whether every weight is a finite number: one that is not would show in the sum."""
        return math.isfinite(float(self._flat.sum()))

    @property
    def bytes_on_disk(self) -> int:
        """What masters and state take in files: the weights and two averages of their gradients."""
        return (4 + ADAM_BYTES[self._spec.optimizer]) * self._flat.numel()

    def load(self, masters: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
        """Go on from saved masters and state. Raises KeyError or RuntimeError when they are of other weights."""
        if masters.keys() != self.masters.keys():
            raise KeyError("other weights than these")
        for name, value in self.masters.items():
            value.copy_(masters[name])
        if state:
            for number, part in enumerate(self._flat_parameters()):
                prefix = f"{number}."
                saved = {name.removeprefix(prefix): state[name] for name in state if name.startswith(prefix)}
                _restore(self._adamw, number, part, saved)
        self.copy_to_model()

    def _views(self, flat: Tensor) -> dict[str, Tensor]:
        sizes = [weight.numel() for weight in self._weights.values()]
        pieces = torch.split(flat, sizes)
        return {name: piece.view_as(self._weights[name]) for name, piece in zip(self._weights, pieces, strict=True)}


def _adamw(groups: list[dict[str, Any]], spec: OptimSpec) -> torch.optim.Optimizer:
    """torch's AdamW, or that of bitsandbytes, whose state may take a byte a value (Dettmers et al. 2021,
    arxiv.org/abs/2110.02861) and may move to main memory when the GPU is full (paged; on a CPU there is nowhere to go).
    """
    if spec.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=0.0, fused=True)
    warnings.filterwarnings("ignore", message="Paged optimizers are not supported on CPU")
    kinds = {
        "adamw_8bit": AdamW8bit,
        "paged_adamw": PagedAdamW32bit,
        "paged_adamw_8bit": PagedAdamW8bit,
    }
    found: torch.optim.Optimizer = kinds[spec.optimizer](groups, lr=0.0)
    return found


def _for_file(name: str, value: Any) -> Tensor:
    """What a file holds of one part of AdamW's memory. bitsandbytes gives all parts the same quantisation map, and
    safetensors refuses two names for one memory."""
    found = torch.as_tensor(value).cpu()
    return found.clone() if name.startswith("qmap") else found


def _restore(adamw: Any, number: int, part: torch.nn.Parameter, saved: Mapping[str, Tensor]) -> None:
    """Give one part its saved memory. Raises KeyError or RuntimeError when it is that of another optimizer."""
    kept = adamw.state[part]
    if isinstance(adamw, Optimizer8bit):
        if not kept:
            adamw.init_state(adamw.param_groups[number], part, number, 0)  # type: ignore[no-untyped-call]
        if kept.keys() != saved.keys():
            raise KeyError("the state of another optimizer")
        for name, value in saved.items():  # in place: paged memory stays where it is
            kept[name] = int(value) if name == "step" else kept[name].copy_(value)
        return
    if saved.keys() != {"step", "exp_avg", "exp_avg_sq"}:
        raise KeyError("the state of another optimizer")
    # The number of steps lives where torch's fused kernel wants it, beside the weights.
    adamw.state[part] = {name: value.clone().to(part.device) for name, value in saved.items()}


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
