"""Layers that compute the same with less to copy and to keep: the LoRA product, the gated MLP and the RMS norm."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn
from torch.nn.functional import linear, silu
from transformers.activations import SiLUActivation

SILU = (nn.SiLU, SiLUActivation)  # by name: near zero GELU gives what it gives, so a few rows do not tell them apart
PROBE_ROWS = 3
AGREE = 0.02  # relative: rounding of bfloat16 at another place


class Frozen(NamedTuple):
    """What does not learn in an adapted layer. weight: (out, in); bias: (out,); scale: of the update."""

    weight: Tensor
    bias: Tensor | None
    scale: float


def _adapted(rows: Tensor, base: Frozen, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """rows W^T + bias + scale (rows A^T) B^T, the update added in place; and rows A^T.

    rows: (n, in); A: (r, in); B: (out, r) -> (n, out), (n, r).
    """
    low = rows @ a.T
    return linear(rows, base.weight, base.bias).addmm_(low, b.T, alpha=base.scale), low


def _update_slopes(slope: Tensor, rows: Tensor, low: Tensor, b: Tensor, scale: float) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of rows A^T, of A and of B, from that of the product. slope: (n, out)."""
    of_low = (slope @ b).mul_(scale)
    return of_low, of_low.T @ rows, (slope.T @ low).mul_(scale)


class _LoraProduct(torch.autograd.Function):
    """The product of an adapted layer whose base is frozen. x: (..., in) -> (..., out)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, base: Frozen, a: Tensor, b: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        product, low = _adapted(rows, base, a, b)
        ctx.save_for_backward(rows, low, base.weight, a, b)
        ctx.scale = base.scale
        return product.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, None, Tensor, Tensor]:
        rows, low, weight, a, b = ctx.saved_tensors
        slope = gradients[0].reshape(-1, weight.shape[0])
        of_low, of_a, of_b = _update_slopes(slope, rows, low, b, ctx.scale)
        of_x = None
        if ctx.needs_input_grad[0]:
            of_x = (slope @ weight).addmm_(of_low, a).view(*gradients[0].shape[:-1], -1)
        return of_x, None, of_a, of_b


class _GatedProduct(torch.autograd.Function):
    """silu(gate) * up, with silu computed again on the way back instead of kept."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, Tensor]:
        return _gate_slopes(gradients[0], *ctx.saved_tensors)


class _GatedLoraProduct(torch.autograd.Function):
    """The same and the adapted layer behind it in one: what goes into that layer is not kept either."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor, base: Frozen, a: Tensor, b: Tensor) -> Tensor:
        product, low = _adapted(silu(gate).mul_(up).flatten(0, -2), base, a, b)
        ctx.save_for_backward(gate, up, low, base.weight, a, b)
        ctx.scale = base.scale
        return product.view(*gate.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, Tensor, None, Tensor, Tensor]:
        gate, up, low, weight, a, b = ctx.saved_tensors
        slope = gradients[0].reshape(-1, weight.shape[0])
        rows = silu(gate).mul_(up).flatten(0, -2)
        of_low, of_a, of_b = _update_slopes(slope, rows, low, b, ctx.scale)
        of_rows = torch.mm(slope, weight, out=rows).addmm_(of_low, a)
        return *_gate_slopes(of_rows.view_as(gate), gate, up), None, of_a, of_b


def _gate_slopes(slope: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of gate and up, from that of silu(gate) * up."""
    of_gate: Tensor = torch.ops.aten.silu_backward(slope * up, gate)
    return of_gate, silu(gate).mul_(slope)


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
    parts = [getattr(module, name, None) for name in ("gate_proj", "up_proj", "down_proj")]
    gated = all(isinstance(one, nn.Module) for one in parts) and isinstance(getattr(module, "act_fn", None), SILU)
    return partial(_gated, module) if gated else None


def _is_plain(module: Any) -> bool:
    """One adapter on an unpacked layer, without dropout and without variants such as DoRA."""
    base = module.base_layer
    frozen = type(base) is nn.Linear and not any(one.requires_grad for one in base.parameters())
    dropout = any(not isinstance(one, nn.Identity) for one in module.lora_dropout.values())
    biased = any(one.bias is not None for one in module.lora_B.values())
    return frozen and not dropout and not biased and not module.lora_variant and len(module.lora_A) == 1


def _lora(module: Any, x: Tensor) -> Tensor:
    if module.disable_adapters:
        plain: Tensor = module.base_layer(x)
        return plain
    made: Tensor = _LoraProduct.apply(x, *_parts(module))  # type: ignore[no-untyped-call]
    return made


def _parts(module: Any) -> tuple[Frozen, Tensor, Tensor]:
    """Of an adapted layer: what is frozen, A and B."""
    base, (name,) = module.base_layer, module.lora_A
    frozen = Frozen(base.weight, base.bias, module.scaling[name])
    return frozen, module.lora_A[name].weight, module.lora_B[name].weight


def _norm(module: Any, x: Tensor) -> Tensor:
    made: Tensor = _RmsNorm.apply(x, module.weight, module.variance_epsilon)  # type: ignore[no-untyped-call]
    return made


def _gated(module: Any, x: Tensor) -> Tensor:
    gate, up, down = module.gate_proj(x), module.up_proj(x), module.down_proj
    made: Tensor
    watched = down._forward_pre_hooks or down._forward_hooks  # who looks at what goes into a layer
    if isinstance(down, LoraLinear) and _is_plain(down) and not down.disable_adapters and not watched:
        made = _GatedLoraProduct.apply(gate, up, *_parts(down))  # type: ignore[no-untyped-call]
    else:
        made = down(_GatedProduct.apply(gate, up))  # type: ignore[no-untyped-call]
    return made


@torch.no_grad()
def _same(module: nn.Module, lean: Callable[[Tensor], Tensor]) -> bool:
    """Whether both forms give the same for a few random rows. Families name alike what they compute differently."""
    like = next(one for one in module.parameters() if one.is_floating_point())  # packed weights are bytes
    width = getattr(getattr(module, "gate_proj", module), "in_features", like.shape[-1])
    rows = torch.randn(1, PROBE_ROWS, width, generator=torch.Generator().manual_seed(0)).to(like)
    own, ours = module(rows).float(), lean(rows).float()
    return own.shape == ours.shape and bool((own - ours).abs().max() <= AGREE * own.abs().max())
