"""Memory-efficient LoRA, SwiGLU and RMSNorm: hand-written autograd functions that copy and save less."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn
from torch.nn.functional import linear, silu
from transformers.activations import SiLUActivation

SILU = (nn.SiLU, SiLUActivation)  # by class: near zero GELU gives the same values, so a numerical probe cannot tell
PROBE_ROWS = 3
PAST_CLAMPS = 30.0  # not more: float16 must hold the products
TOLERANCE = 0.02  # relative: bfloat16 rounds at different places


class FrozenLinear(NamedTuple):
    """The frozen part of a LoRA layer. weight: (out, in); bias: (out,); scale: factor on B A."""

    weight: Tensor
    bias: Tensor | None
    scale: float


def _lora_forward(rows: Tensor, base: FrozenLinear, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """rows W^T + bias + scale (rows A^T) B^T, the update added in place; and rows A^T.

    rows: (n, in); A: (r, in); B: (out, r) -> (n, out), (n, r).
    """
    low = rows @ a.T
    return linear(rows, base.weight, base.bias).addmm_(low, b.T, alpha=base.scale), low


def _lora_grads(grad_out: Tensor, rows: Tensor, low: Tensor, b: Tensor, scale: float) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of rows A^T, of A and of B. grad_out: (n, out)."""
    grad_low = (grad_out @ b).mul_(scale)
    return grad_low, grad_low.T @ rows, (grad_out.T @ low).mul_(scale)


class _LoraLinear(torch.autograd.Function):
    """A linear layer with LoRA on a frozen base. x: (..., in) -> (..., out)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, base: FrozenLinear, a: Tensor, b: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        out, low = _lora_forward(rows, base, a, b)
        ctx.save_for_backward(rows, low, base.weight, a, b)
        ctx.scale = base.scale
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, None, Tensor, Tensor]:
        rows, low, weight, a, b = ctx.saved_tensors
        grad_out = gradients[0].reshape(-1, weight.shape[0])
        grad_low, grad_a, grad_b = _lora_grads(grad_out, rows, low, b, ctx.scale)
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = (grad_out @ weight).addmm_(grad_low, a).view(*gradients[0].shape[:-1], -1)
        return grad_x, None, grad_a, grad_b


class _SwiGLU(torch.autograd.Function):
    """silu(gate) * up (Shazeer 2020, arxiv.org/abs/2002.05202); silu is recomputed in the backward pass, not saved."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, Tensor]:
        return _swiglu_grads(gradients[0], *ctx.saved_tensors)


class _SwiGLULoraLinear(torch.autograd.Function):
    """SwiGLU and the LoRA down projection in one, so that the projection's input is not saved either."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor, base: FrozenLinear, a: Tensor, b: Tensor) -> Tensor:
        out, low = _lora_forward(silu(gate).mul_(up).flatten(0, -2), base, a, b)
        ctx.save_for_backward(gate, up, low, base.weight, a, b)
        ctx.scale = base.scale
        return out.view(*gate.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, Tensor, None, Tensor, Tensor]:
        gate, up, low, weight, a, b = ctx.saved_tensors
        grad_out = gradients[0].reshape(-1, weight.shape[0])
        rows = silu(gate).mul_(up).flatten(0, -2)
        grad_low, grad_a, grad_b = _lora_grads(grad_out, rows, low, b, ctx.scale)
        grad_rows = torch.mm(grad_out, weight, out=rows).addmm_(grad_low, a)
        return *_swiglu_grads(grad_rows.view_as(gate), gate, up), None, grad_a, grad_b


def _swiglu_grads(grad_out: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of gate and up."""
    grad_gate: Tensor = torch.ops.aten.silu_backward(grad_out * up, gate)
    return grad_gate, silu(gate).mul_(grad_out)


class _RMSNorm(torch.autograd.Function):
    """weight * x / sqrt(mean(x^2) + eps), weight frozen (Zhang & Sennrich 2019, arxiv.org/abs/1910.07467)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        x32 = x.float()
        inv_rms = x32.square().mean(dim=-1, keepdim=True).add_(eps).rsqrt_()
        ctx.save_for_backward(x, inv_rms, weight)
        return (x32 * inv_rms).to(x.dtype).mul_(weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, None, None]:
        x, inv_rms, weight = ctx.saved_tensors
        grad = (gradients[0] * weight).float()
        normed = x.float().mul_(inv_rms)
        projection = (grad * normed).mean(dim=-1, keepdim=True)
        return grad.sub_(normed.mul_(projection)).mul_(inv_rms).to(x.dtype), None, None


def make_lean(model: nn.Module) -> None:
    """Replace the forward of every LoRA, SwiGLU and RMSNorm layer, unless it computes something else."""
    is_same: dict[type[nn.Module], bool] = {}
    anywhere = next(one for one in model.parameters() if one.is_floating_point())
    for module in model.modules():
        lean = _lean_form(module)
        if lean is None:
            continue
        if type(module) not in is_same:
            is_same[type(module)] = _computes_same(module, lean, anywhere)
        if is_same[type(module)]:
            module.forward = lean


def _lean_form(module: nn.Module) -> Callable[[Tensor], Tensor] | None:
    if isinstance(module, LoraLinear):
        return partial(_lora_linear, module) if _is_plain(module) else None
    weight = getattr(module, "weight", None)
    if type(module).__name__.endswith(("RMSNorm", "T5LayerNorm")) and hasattr(module, "variance_epsilon"):
        return partial(_rms_norm, module) if isinstance(weight, Tensor) and not weight.requires_grad else None
    parts = [getattr(module, name, None) for name in ("gate_proj", "up_proj", "down_proj")]
    is_swiglu = all(isinstance(one, nn.Module) for one in parts) and isinstance(getattr(module, "act_fn", None), SILU)
    return partial(_swiglu_mlp, module) if is_swiglu else None


def _is_plain(module: Any) -> bool:
    """One adapter on an unquantised layer of the same dtype, no dropout, no variant such as DoRA.

    transformers keeps a few layers in float32 whatever the model's dtype (T5's `wo` under float16).
    """
    base = module.base_layer
    frozen = type(base) is nn.Linear and not any(one.requires_grad for one in base.parameters())
    one_dtype = all(one.weight.dtype == base.weight.dtype for one in module.lora_A.values())
    dropout = any(not isinstance(one, nn.Identity) for one in module.lora_dropout.values())
    biased = any(one.bias is not None for one in module.lora_B.values())
    plain = frozen and one_dtype and not dropout and not biased
    return plain and not module.lora_variant and len(module.lora_A) == 1


def _lora_linear(module: Any, x: Tensor) -> Tensor:
    if module.disable_adapters:
        plain: Tensor = module.base_layer(x)
        return plain
    out: Tensor = _LoraLinear.apply(x, *_parts(module))  # type: ignore[no-untyped-call]
    return out


def _parts(module: Any) -> tuple[FrozenLinear, Tensor, Tensor]:
    """The frozen part of a LoRA layer, its A and its B."""
    base, (name,) = module.base_layer, module.lora_A
    frozen = FrozenLinear(base.weight, base.bias, module.scaling[name])
    return frozen, module.lora_A[name].weight, module.lora_B[name].weight


def _rms_norm(module: Any, x: Tensor) -> Tensor:
    if x.dtype != module.weight.dtype:  # after T5's `wo` under float16: families differ in the dtype they return
        own: Tensor = type(module).forward(module, x)
        return own
    out: Tensor = _RMSNorm.apply(x, module.weight, module.variance_epsilon)  # type: ignore[no-untyped-call]
    return out


def _swiglu_mlp(module: Any, x: Tensor) -> Tensor:
    gate, up, down = module.gate_proj(x), module.up_proj(x), module.down_proj
    out: Tensor
    hooked = down._forward_pre_hooks or down._forward_hooks  # hooks need the layer to be called
    if isinstance(down, LoraLinear) and _is_plain(down) and not down.disable_adapters and not hooked:
        out = _SwiGLULoraLinear.apply(gate, up, *_parts(down))  # type: ignore[no-untyped-call]
    else:
        out = down(_SwiGLU.apply(gate, up))  # type: ignore[no-untyped-call]
    return out


@torch.no_grad()
def _computes_same(module: nn.Module, lean: Callable[[Tensor], Tensor], anywhere: Tensor) -> bool:
    """Whether both give the same outputs for a few random rows. Layers of the same name differ between families.

    The rows have the format of the module's weights; quantised ones are bytes, and then it is that of `anywhere`.
    """
    like = next((one for one in module.parameters() if one.is_floating_point()), anywhere)
    width = getattr(getattr(module, "gate_proj", module), "in_features", like.shape[-1])
    rows = torch.randn(1, PROBE_ROWS, width, generator=torch.Generator().manual_seed(0)).to(like)
    probes = (rows, _past_clamps(module, rows)) if hasattr(module, "gate_proj") else (rows,)
    return all(_same_outputs(module, lean, one) for one in probes)


def _past_clamps(module: Any, rows: Tensor) -> Tensor:
    """The rows, scaled until gate and up exceed what some families clamp them to (DeepSeek-V4 to 10)."""
    largest = min(float(layer(rows).abs().max()) for layer in (module.gate_proj, module.up_proj))
    return rows * (PAST_CLAMPS / max(largest, 1e-3))


def _same_outputs(module: nn.Module, lean: Callable[[Tensor], Tensor], rows: Tensor) -> bool:
    own, ours = module(rows).float(), lean(rows).float()
    return own.shape == ours.shape and bool((own - ours).abs().max() <= TOLERANCE * own.abs().max())
