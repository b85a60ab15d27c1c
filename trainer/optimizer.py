"""AdamW on float32 master copies of the LoRA weights, with gradient clipping and the learning rate schedule."""

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, groupby
from typing import Any, NamedTuple

import torch
from bitsandbytes.optim.adamw import AdamW8bit, PagedAdamW8bit, PagedAdamW32bit
from bitsandbytes.optim.optimizer import Optimizer8bit
from torch import Tensor

from trainer.estimate import ADAM_BYTES
from trainer.spec import OptimSpec

# Loss scale in float16, where small gradients would underflow.
FLOAT16_LOSS_SCALE = 1024.0
# A model has hundreds of small LoRA weights; on a GPU each operation costs more to launch than to run. As in torch's
# own optimizers, `torch._foreach_...` handles lists of tensors at once. This many values are accumulated at a time.
FOREACH_ELEMENTS = 1 << 22
# On a CPU bitsandbytes holds a whole parameter's 8-bit state in float32 while updating it: 20 bytes a value. Parameters
# of this many values, a multiple of its quantisation blocks, bound that and give the same result.
PARAMETER_8BIT = 1 << 20
BLOCK_8BIT = 256
MIN_8BIT = 4096  # values; bitsandbytes keeps the state of smaller parameters in float32


class GroupOptions(NamedTuple):
    """Options of a parameter group: a factor on the learning rate, and the weight decay."""

    lr_ratio: float
    weight_decay: float


class MasterAdamW:
    """AdamW (Loshchilov & Hutter 2019, arxiv.org/abs/1711.05101) on float32 master copies of `weights`.

    The model computes in a format whose precision is too low for small updates to register; the masters keep them.
    All masters are views of one flat tensor, sorted by parameter group, so a step takes few kernels whatever the number
    of layers.
    """

    def __init__(self, weights: Mapping[str, torch.nn.Parameter], spec: OptimSpec) -> None:
        self._spec = spec
        options = {name: self._group_options(name, weight) for name, weight in weights.items()}
        ordered = sorted(weights, key=options.__getitem__)
        named = {group: list(names) for group, names in groupby(ordered, options.__getitem__)}
        self._weights = {name: weights[name] for names in named.values() for name in names}
        flat = torch.cat([weight.detach().float().flatten() for weight in self._weights.values()])
        self._flat, self._gradient = flat, torch.zeros_like(flat)
        self.masters, self._gradients = self._views(flat), self._views(self._gradient)
        sizes = [sum(weights[name].numel() for name in names) for names in named.values()]
        groups = []
        for group, part, gradient in zip(
            named, torch.split(flat, sizes), torch.split(self._gradient, sizes), strict=True
        ):
            pieces = (torch.split(one, _parameter_sizes(part, spec)) for one in (part, gradient))
            groups.append({"params": [_parameter(*one) for one in zip(*pieces, strict=True)], **group._asdict()})
        self._adamw = _adamw(groups, spec)
        is_float16 = any(weight.dtype == torch.float16 for weight in self._weights.values())
        self.loss_scale = FLOAT16_LOSS_SCALE if is_float16 else 1.0

    def _group_options(self, name: str, weight: Tensor) -> "GroupOptions":
        """LoRA+ (Hayou et al. 2024, arxiv.org/abs/2402.12354) as in PEFT. Only A and B matrices have weight decay."""
        fast = name.endswith(".lora_B.weight") or weight.dim() == 1
        is_update = name.endswith((".lora_A.weight", ".lora_B.weight"))
        ratio = self._spec.loraplus_lr_ratio or 1.0
        return GroupOptions(ratio if fast else 1.0, self._spec.weight_decay if is_update else 0.0)

    @torch.no_grad()
    def accumulate(self) -> None:
        """Add the gradients of one pass to the float32 total, and clear them from the model."""
        with_gradient = [name for name, weight in self._weights.items() if weight.grad is not None]
        for names in self._chunks(with_gradient):
            given = [gradient for name in names if (gradient := self._weights[name].grad) is not None]
            into = [self._gradients[name] for name in names]
            if given[0].dtype != torch.float32:  # _foreach_add_ needs equal formats, _foreach_copy_ does not
                wide = [torch.empty_like(one) for one in into]
                torch._foreach_copy_(wide, given)
                given = wide
            torch._foreach_add_(into, given)
            for name in names:
                self._weights[name].grad = None

    def _chunks(self, names: list[str]) -> Iterator[list[str]]:
        """Group names into chunks of about `FOREACH_ELEMENTS` values: gradients of a chunk are briefly held twice."""
        before = list(accumulate((self._weights[name].numel() for name in names), initial=0))
        numbered = zip(names, before, strict=False)
        for _, some in groupby(numbered, lambda one: one[1] // FOREACH_ELEMENTS):
            yield [name for name, _ in some]

    @property
    def gradient(self) -> Tensor:
        """The accumulated gradient of all weights, flat."""
        return self._gradient

    def zero_grad(self) -> None:
        """Drop all accumulated gradients."""
        for weight in self._weights.values():
            weight.grad = None
        self._gradient.zero_()

    def grad_norm(self) -> float:
        """Undo the loss scale, in place, and return the gradient's norm before clipping."""
        if self.loss_scale != 1.0:
            self._gradient /= self.loss_scale
        return float(self._gradient.norm())

    def step(self, *, learning_rate: float, norm: float) -> None:
        """Clip the gradient to max_grad_norm, update the masters, and copy them to the model."""
        if 0 < self._spec.max_grad_norm < norm:
            self._gradient.mul_(self._spec.max_grad_norm / norm)
        for group in self._adamw.param_groups:
            group["lr"] = learning_rate * group["lr_ratio"]
        self._adamw.step()
        self.copy_to_model()
        self._gradient.zero_()

    @torch.no_grad()
    def copy_to_model(self) -> None:
        """Copy the masters to the model's weights, in the model's format."""
        torch._foreach_copy_(list(self._weights.values()), list(self.masters.values()))

    def masters_on_cpu(self) -> dict[str, Tensor]:
        """Float32 copies of the masters; safetensors rejects tensors that share memory."""
        return {name: value.cpu().clone() for name, value in self.masters.items()}

    def state(self) -> dict[str, Tensor]:
        """AdamW's state, to be saved beside the masters, keyed "{parameter group}.{name}"."""
        found: dict[str, Tensor] = {}
        for number, group in enumerate(self._adamw.param_groups):
            states = [self._adamw.state.get(parameter, {}) for parameter in group["params"]]
            found |= {f"{number}.{name}": _for_file(name, [one[name] for one in states]) for name in states[0]}
        return found

    def is_finite(self) -> bool:
        """Whether all weights are finite: a NaN or infinity would show in their sum."""
        return math.isfinite(float(self._flat.sum()))

    @property
    def bytes_on_disk(self) -> int:
        """Size of masters and state in files: the weights and AdamW's two moments."""
        return (4 + ADAM_BYTES[self._spec.optimizer]) * self._flat.numel()

    def load(self, masters: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
        """Restore saved masters and state. Raises KeyError or RuntimeError if they belong to other weights."""
        if masters.keys() != self.masters.keys():
            raise KeyError("other weights than these")
        for name, value in self.masters.items():
            value.copy_(masters[name])
        if state:
            for number, group in enumerate(self._adamw.param_groups):
                prefix = f"{number}."
                saved = {name.removeprefix(prefix): state[name] for name in state if name.startswith(prefix)}
                _restore(self._adamw, group, saved)
        self.copy_to_model()

    def _views(self, flat: Tensor) -> dict[str, Tensor]:
        sizes = [weight.numel() for weight in self._weights.values()]
        pieces = torch.split(flat, sizes)
        return {name: piece.view_as(self._weights[name]) for name, piece in zip(self._weights, pieces, strict=True)}


def _parameter(values: Tensor, gradient: Tensor) -> torch.nn.Parameter:
    parameter = torch.nn.Parameter(values)
    parameter.grad = gradient
    return parameter


def _adamw(groups: list[dict[str, Any]], spec: OptimSpec) -> torch.optim.Optimizer:
    """torch's AdamW or one of bitsandbytes.

    The 8-bit ones keep their moments in one byte a value (Dettmers et al. 2021, arxiv.org/abs/2110.02861). The paged
    ones move them to main memory when the GPU is full; on a CPU paging does nothing.
    """
    if spec.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=0.0, fused=True)
    warnings.filterwarnings("ignore", message="Paged optimizers are not supported on CPU")
    kinds = {
        "adamw_8bit": AdamW8bit,
        "paged_adamw": PagedAdamW32bit,
        "paged_adamw_8bit": PagedAdamW8bit,
    }
    optimizer: torch.optim.Optimizer = kinds[spec.optimizer](groups, lr=0.0)
    return optimizer


def _parameter_sizes(part: Tensor, spec: OptimSpec) -> list[int]:
    """Into how many parameters of how many values a group is split, see PARAMETER_8BIT."""
    count = len(part)
    if not part.is_cpu or not spec.optimizer.endswith("8bit") or count <= PARAMETER_8BIT:
        return [count]
    whole, rest = divmod(count, PARAMETER_8BIT)
    sizes = [PARAMETER_8BIT] * whole
    if rest < MIN_8BIT:
        sizes[-1] += rest
        return sizes
    return [*sizes, rest]


def _for_file(name: str, values: Sequence[Any]) -> Tensor:
    """One tensor of AdamW's state as a file holds it, whatever the parameters that a group is split into.

    bitsandbytes shares one quantisation map among all parameters, and safetensors rejects tensors that share memory.
    """
    if _is_per_value(name) and len(values) > 1:
        return torch.cat([value.cpu() for value in values])
    tensor = torch.as_tensor(values[0]).cpu()
    return tensor.clone() if name.startswith("qmap") else tensor


def _is_per_value(name: str) -> bool:
    """Whether a tensor of bitsandbytes' state has one element per value (state) or per block of values (absmax)."""
    return name.startswith(("state", "absmax"))


def _restore(adamw: Any, group: dict[str, Any], saved: Mapping[str, Tensor]) -> None:
    """Restore the saved state of a group. Raises KeyError or RuntimeError if another optimizer wrote it."""
    if isinstance(adamw, Optimizer8bit):
        sizes = [parameter.numel() for parameter in group["params"]]
        for parameter, part in zip(group["params"], _split_state(saved, sizes), strict=True):
            _restore_8bit(adamw, group, parameter, part)
        return
    if saved.keys() != {"step", "exp_avg", "exp_avg_sq"}:
        raise KeyError("the state of another optimizer")
    [parameter] = group["params"]
    # torch's fused kernel wants the step count on the device of the weights, too.
    adamw.state[parameter] = {name: value.clone().to(parameter.device) for name, value in saved.items()}


def _split_state(saved: Mapping[str, Tensor], sizes: list[int]) -> Iterator[dict[str, Tensor]]:
    """The state of each parameter of a group, of so many values each."""
    blocks = [math.ceil(size / BLOCK_8BIT) for size in sizes]
    parts = {
        name: torch.split(value, blocks if name.startswith("absmax") else sizes)
        if _is_per_value(name)
        else [value] * len(sizes)
        for name, value in saved.items()
    }
    for number in range(len(sizes)):
        yield {name: values[number] for name, values in parts.items()}


def _restore_8bit(
    adamw: Any, group: dict[str, Any], parameter: torch.nn.Parameter, saved: Mapping[str, Tensor]
) -> None:
    kept = adamw.state[parameter]
    if not kept:
        adamw.init_state(group, parameter, 0, 0)  # 0, 0: for overrides by index, of which there are none
    if kept.keys() != saved.keys():
        raise KeyError("the state of another optimizer")
    for name, value in saved.items():  # in place, to keep paged buffers
        kept[name] = int(value) if name == "step" else kept[name].copy_(value)


def learning_rate_at(step: int, of: int, spec: OptimSpec) -> float:
    """The learning rate of step `step` (from 0): linear warm-up, then constant or a linear or cosine decay to zero."""
    warmup = math.ceil(of * spec.warmup_ratio)
    if step < warmup:
        return spec.learning_rate * (step + 1) / warmup
    done = (step - warmup) / max(1, of - warmup)
    if spec.schedule == "linear":
        return spec.learning_rate * (1 - done)
    if spec.schedule == "cosine":
        return spec.learning_rate * (1 + math.cos(math.pi * done)) / 2
    return spec.learning_rate
