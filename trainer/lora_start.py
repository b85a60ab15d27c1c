"""Initial values of LoRA weights, and the adapter to publish if the initial update was subtracted from the base."""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from bitsandbytes.nn.modules import Linear4bit, Linear8bitLt
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from peft.utils.integrations import dequantize_module_weight
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from trainer.adapter_format import PREFIX
from trainer.errors import TrainerError
from trainer.events import Emit, Heartbeat
from trainer.lora_spec import LoraSpec

SUBTRACTED_FROM_BASE = ("pissa", "olora")  # the initial update is subtracted from the frozen weight
EXACT_SVD = 1024  # narrower layers get an exact SVD; wider ones a randomised one, as by PEFT's pissa_niter_16


@dataclasses.dataclass(frozen=True)
class Layer:
    """A layer with LoRA: its path in the base model, and the matrices A (r, in) and B (out, r)."""

    path: str
    module: Any

    @property
    def a(self) -> nn.Parameter:
        found: nn.Parameter = self.module.lora_A["default"].weight
        return found

    @property
    def b(self) -> nn.Parameter:
        found: nn.Parameter = self.module.lora_B["default"].weight
        return found

    @property
    def scaling(self) -> float:
        return float(self.module.scaling["default"])

    @property
    def is_transposed(self) -> bool:
        """Whether the base weight is stored as (in, out)."""
        return isinstance(self.module.get_base_layer(), Conv1D)

    def weight(self) -> Tensor:
        """The base weight as (out, in), in float32."""
        stored: Tensor = dequantize_module_weight(self.module.get_base_layer()).detach().float()
        return stored.T if self.is_transposed else stored


def lora_layers(peft: PeftModel) -> Iterator[Layer]:
    """All layers with LoRA, in the model's order: the same in every process."""
    for name, module in peft.named_modules():
        if isinstance(module, LoraLayer):
            yield Layer(name.removeprefix(PREFIX), module)


@torch.no_grad()
def init_lora(peft: PeftModel, lora: LoraSpec, full_weights: Mapping[str, Tensor], emit: Emit) -> None:
    """Initialise all LoRA weights; PEFT has done so by its default. `full_weights`: unquantised, by path, for loftq.

    pissa: Meng et al. 2024, arxiv.org/abs/2404.02948. olora: Büyükakyüz 2024, arxiv.org/abs/2406.01775. loftq: Li et
    al. 2023, arxiv.org/abs/2310.08659, with a single iteration, so that the base stays unchanged. Raises
    TrainerError(user_config).
    """
    if lora.init_lora_weights in ("default", "eva"):  # eva needs data, see `trainer.eva`
        return
    layers, heartbeat = list(lora_layers(peft)), Heartbeat(emit)
    for number, layer in enumerate(layers, start=1):
        heartbeat(f"Initialising LoRA ({lora.init_lora_weights}): layer {number:,} of {len(layers):,}")
        if lora.init_lora_weights == "gaussian":
            layer.a.normal_(std=1 / layer.a.shape[0])
        elif lora.init_lora_weights == "orthogonal":
            _orthogonal(layer)
        else:
            _start_from_weight(layer, lora.init_lora_weights, full_weights)


def _orthogonal(layer: Layer) -> None:
    """A and B in orthogonal subspaces of the rank dimension: neither is zero, but their product is.

    As in PEFT; datta0.github.io/posts/rethink-lora-init.
    """
    rank = layer.a.shape[0]
    q, _ = torch.linalg.qr(torch.randn(rank, rank))
    layer.a.copy_((torch.randn(layer.a.shape[1], rank // 2) @ q[0::2]).T / 10)
    layer.b.copy_(torch.randn(rank // 2, layer.b.shape[0]).T @ q[1::2] / 10)


def _start_from_weight(layer: Layer, kind: str, full_weights: Mapping[str, Tensor]) -> None:
    """A and B from a decomposition of the base weight (pissa, olora) or of its quantisation error (loftq)."""
    base, weight, rank = layer.module.get_base_layer(), layer.weight(), layer.a.shape[0]
    if kind == "loftq":
        original = full_weights[layer.path].to(weight)
        b, a = _low_rank((original.T if layer.is_transposed else original) - weight, rank)
    elif kind == "pissa":
        b, a = _low_rank(weight, rank)
    else:
        q, r = torch.linalg.qr(weight)
        b, a = q[:, :rank], r[:rank]
    # PiSSA and LoftQ undo the scaling, half in each factor: scaling * B A is the decomposed part itself.
    divisor = math.sqrt(layer.scaling) if kind != "olora" else 1.0
    layer.a.copy_(a / divisor)
    layer.b.copy_(b / divisor)
    if kind == "loftq":
        _set_magnitudes(layer, weight)
    if kind in SUBTRACTED_FROM_BASE:
        if isinstance(base, (Linear4bit, Linear8bitLt)):
            text = f"{kind} changes the base weights during training, and there is no memory to unpack quantised ones."
            raise _refused(text, "Set model.quantization to none, or choose another lora.init_lora_weights.")
        residual = weight - layer.scaling * layer.b.float() @ layer.a.float()
        base.weight.copy_(residual.T if layer.is_transposed else residual)


def _set_magnitudes(layer: Layer, weight: Tensor) -> None:
    """Recompute DoRA's magnitudes, if used: PEFT set them before the initial update was known."""
    for magnitude in layer.module.lora_magnitude_vector.values():
        adapted = weight + layer.scaling * layer.b.float() @ layer.a.float()
        magnitude.weight.copy_(torch.linalg.norm(adapted, dim=1))


def _low_rank(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The best approximation of this rank, as (out, rank) and (rank, in) with the singular values shared equally."""
    if min(matrix.shape) <= EXACT_SVD:
        left, values, right = torch.linalg.svd(matrix, full_matrices=False)
        left, values, right = left[:, :rank], values[:rank], right[:rank]
    else:
        left, values, v = torch.svd_lowrank(matrix, rank, niter=16)
        right = v.T
    root = values.sqrt()
    return left * root, root[:, None] * right


def published(weights: Mapping[str, Tensor], initial: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The adapter for the unchanged base: the update minus the initial one, as one product of twice the rank.

    W - s B0 A0 + s B A = W + s [B | -B0] [A ; A0], as PEFT converts PiSSA and OLoRA. `initial` holds A0 and B0.
    """
    converted = dict(weights)
    for name, value in weights.items():
        if name.endswith(".lora_A.weight"):
            converted[name] = torch.cat([value, initial[name].to(value)], dim=0)
        elif name.endswith(".lora_B.weight"):
            converted[name] = torch.cat([value, -initial[name].to(value)], dim=1)
    return converted


def published_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The PEFT config for `published` weights: twice the rank, same scaling."""
    factor = math.sqrt(2) if config["use_rslora"] else 2
    return {
        **config,
        "r": config["r"] * 2,
        "lora_alpha": config["lora_alpha"] * factor,
        "rank_pattern": {name: rank * 2 for name, rank in config["rank_pattern"].items()},
        "alpha_pattern": {name: alpha * factor for name, alpha in config["alpha_pattern"].items()},
    }


def _refused(text: str, fix: str) -> TrainerError:
    return TrainerError("user_config", text, fix)
