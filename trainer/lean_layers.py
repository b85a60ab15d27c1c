"""Layers that compute the same with less to copy and to keep: the LoRA product, the gated MLP and the RMS norm."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn
from torch.nn.functional import linear, silu

PROBE_ROWS = 3
AGREE = 0.02  # relative: rounding of bfloat16 at another place


class _LoraProduct(torch.autograd.Function):
    """x W^T + bias + scale (x A^T) B^T with frozen W and bias: the update is added in place, on both ways.

    x: (..., in); W: (out, in); A: (r, in); B: (out, r) -> (..., out).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, base: tuple[Tensor, Tensor | None], a: Tensor, b: Tensor, scale: float) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        low = rows @ a.T
        product = linear(rows, *base)
        product.addmm_(low, b.T, alpha=scale)
        ctx.save_for_backward(rows, low, base[0], a, b)
        ctx.scale = scale
        return product.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, None, Tensor, Tensor, None]:
        rows, low, weight, a, b = ctx.saved_tensors
        slope = gradients[0].reshape(-1, weight.shape[0])
        of_low = (slope @ b).mul_(ctx.scale)
        of_b = (slope.T @ low).mul_(ctx.scale)
        of_x = None
        if ctx.needs_input_grad[0]:
            of_x = (slope @ weight).addmm_(of_low, a).view(*gradients[0].shape[:-1], -1)
        return of_x, None, of_low.T @ rows, of_b, None


class _GatedProduct(torch.autograd.Function):
    """silu(gate) * up, with silu computed again on the way back instead of kept."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        of_up = silu(gate).mul_(gradients[0])
        of_gate: Tensor = torch.ops.aten.silu_backward(gradients[0] * up, gate)
        return of_gate, of_up


class _RmsNorm(torch.autograd.Function):
    """weight * x / sqrt(mean(x^2) + eps), weight frozen (Zhang & Sennrich 2019, arxiv.org/abs/1910.07467)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        wide = x.float()
        inverse = wide.square().mean(dim=-1, keepdim=True).add_(eps).rsqrt_()
        ctx.save_for_backward(x, inverse, weight)
        return (wide * inverse).to(x.dtype).mul_(weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, None, None]:
        x, inverse, weight = ctx.saved_tensors
        slope = (gradients[0] * weight).float()
        normal = x.float().mul_(inverse)
        share = (slope * normal).mean(dim=-1, keepdim=True)
        return slope.sub_(normal.mul_(share)).mul_(inverse).to(x.dtype), None, None


def make_lean(model: nn.Module) -> None:
    """Give every layer of a kind known here its lean form. A layer that computes anything else keeps its own."""
    alike: dict[type[nn.Module], bool] = {}
    for module in model.modules():
        lean = _lean_form(module)
        if lean is None:
            continue
        if type(module) not in alike:
            alike[type(module)] = _same(module, lean)
        if alike[type(module)]:
            module.forward = lean


def _lean_form(module: nn.Module) -> Callable[[Tensor], Tensor] | None:
    if isinstance(module, LoraLinear):
        return partial(_lora, module) if _is_plain(module) else None
    weight = getattr(module, "weight", None)
    if type(module).__name__.endswith(("RMSNorm", "T5LayerNorm")) and hasattr(module, "variance_epsilon"):
        return partial(_norm, module) if isinstance(weight, Tensor) and not weight.requires_grad else None
    parts = [getattr(module, name, None) for name in ("gate_proj", "up_proj", "down_proj", "act_fn")]
    return partial(_gated, module) if all(isinstance(one, nn.Module) for one in parts) else None


def _is_plain(module: Any) -> bool:
    """One adapter on an unpacked layer, without dropout and without variants such as DoRA."""
    base = module.base_layer
    frozen = type(base) is nn.Linear and not any(one.requires_grad for one in base.parameters())
    dropout = any(not isinstance(one, nn.Identity) for one in module.lora_dropout.values())
    biased = any(one.bias is not None for one in module.lora_B.values())
    return frozen and not dropout and not biased and not module.lora_variant and len(module.lora_A) == 1


def _lora(module: Any, x: Tensor) -> Tensor:
    base = module.base_layer
    if module.disable_adapters:
        plain: Tensor = base(x)
        return plain
    (name,) = module.lora_A
    a, b = module.lora_A[name].weight, module.lora_B[name].weight
    made: Tensor = _LoraProduct.apply(x, (base.weight, base.bias), a, b, module.scaling[name])  # type: ignore[no-untyped-call]
    return made


def _norm(module: Any, x: Tensor) -> Tensor:
    made: Tensor = _RmsNorm.apply(x, module.weight, module.variance_epsilon)  # type: ignore[no-untyped-call]
    return made


def _gated(module: Any, x: Tensor) -> Tensor:
    product = _GatedProduct.apply(module.gate_proj(x), module.up_proj(x))  # type: ignore[no-untyped-call]
    made: Tensor = module.down_proj(product)
    return made


@torch.no_grad()
def _same(module: nn.Module, lean: Callable[[Tensor], Tensor]) -> bool:
    """Whether both forms give the same for a few random rows. Families name alike what they compute differently."""
    like = next(one for one in module.parameters() if one.is_floating_point())  # packed weights are bytes
    width = getattr(getattr(module, "gate_proj", module), "in_features", like.shape[-1])
    rows = torch.randn(1, PROBE_ROWS, width, generator=torch.Generator().manual_seed(0)).to(like)
    own, ours = module(rows).float(), lean(rows).float()
    return own.shape == ours.shape and bool((own - ours).abs().max() <= AGREE * own.abs().max())
