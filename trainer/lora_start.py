"""How the update of each layer starts, and what is published when a start took a part out of the base's weights."""

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
from trainer.lora_spec import LoraSpec

TAKES_FROM_BASE = ("pissa", "olora")  # what the update starts with is taken out of the frozen weight
EXACT_SVD = 1024  # narrower layers are taken apart exactly; wider ones by iteration, as PEFT's pissa_niter_16 does


@dataclasses.dataclass(frozen=True)
class Layer:
    """A layer with an update: its path in the base, and the matrices A (r, in) and B (out, r)."""

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
    def lies_across(self) -> bool:
        """Whether the base's weight is stored as (in, out)."""
        return isinstance(self.module.get_base_layer(), Conv1D)

    def weight(self) -> Tensor:
        """The base's weight as (out, in), in float32."""
        stored: Tensor = dequantize_module_weight(self.module.get_base_layer()).detach().float()
        return stored.T if self.lies_across else stored


def lora_layers(peft: PeftModel) -> Iterator[Layer]:
    for name, module in peft.named_modules():
        if isinstance(module, LoraLayer):
            yield Layer(name.removeprefix(PREFIX), module)


@torch.no_grad()
def init_lora(peft: PeftModel, lora: LoraSpec, whole: Mapping[str, Tensor]) -> None:
    """Give every update its start; PEFT's default stands already. `whole`: the base's unquantised weights, for loftq.

    pissa: Meng et al. 2024, arxiv.org/abs/2404.02948. olora: Büyükakyüz 2024, arxiv.org/abs/2406.01775. loftq: Li et
    al. 2023, arxiv.org/abs/2310.08659, in one iteration, so that the base stays as it is. Raises
    TrainerError(user_config).
    """
    if lora.init_lora_weights in ("default", "eva"):  # eva needs data, see `trainer.eva`
        return
    for layer in lora_layers(peft):
        if lora.init_lora_weights == "gaussian":
            layer.a.normal_(std=1 / layer.a.shape[0])
        elif lora.init_lora_weights == "orthogonal":
            _orthogonal(layer)
        else:
            _start_from_weight(layer, lora.init_lora_weights, whole)


def _orthogonal(layer: Layer) -> None:
    """Rows of A and columns of B in subspaces at right angles: neither is zero, and their product is.

    As PEFT does it; datta0.github.io/posts/rethink-lora-init.
    """
    rank = layer.a.shape[0]
    turned, _ = torch.linalg.qr(torch.randn(rank, rank))
    layer.a.copy_((torch.randn(layer.a.shape[1], rank // 2) @ turned[0::2]).T / 10)
    layer.b.copy_(torch.randn(rank // 2, layer.b.shape[0]).T @ turned[1::2] / 10)


def _start_from_weight(layer: Layer, kind: str, whole: Mapping[str, Tensor]) -> None:
    base, weight, rank = layer.module.get_base_layer(), layer.weight(), layer.a.shape[0]
    if kind == "loftq":
        original = whole[layer.path].to(weight)
        b, a = _low_rank((original.T if layer.lies_across else original) - weight, rank)
    elif kind == "pissa":
        b, a = _low_rank(weight, rank)
    else:
        q, triangle = torch.linalg.qr(weight)
        b, a = q[:, :rank], triangle[:rank]
    # Singular values are shared out between the two, so that the scaled product is the part of the weight itself.
    share = math.sqrt(layer.scaling) if kind != "olora" else 1.0
    layer.a.copy_(a / share)
    layer.b.copy_(b / share)
    if kind == "loftq":
        _set_magnitudes(layer, weight)
    if kind in TAKES_FROM_BASE:
        if isinstance(base, (Linear4bit, Linear8bitLt)):
            text = f"{kind} changes the base's weights while it trains, and memory has no room to unpack them."
            raise _refused(text, "Set model.quantization to none, or choose another lora.init_lora_weights.")
        rest = weight - layer.scaling * layer.b.float() @ layer.a.float()
        base.weight.copy_(rest.T if layer.lies_across else rest)


def _set_magnitudes(layer: Layer, weight: Tensor) -> None:
    """DoRA's magnitudes, where it is used, of the weight and its start together: PEFT set them before there was one."""
    for magnitude in layer.module.lora_magnitude_vector.values():
        whole = weight + layer.scaling * layer.b.float() @ layer.a.float()
        magnitude.weight.copy_(torch.linalg.norm(whole, dim=1))


def _low_rank(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The best product of (out, rank) and (rank, in), its singular values shared equally."""
    if min(matrix.shape) <= EXACT_SVD:
        left, values, right = torch.linalg.svd(matrix, full_matrices=False)
        left, values, right = left[:, :rank], values[:rank], right[:rank]
    else:
        left, values, turned = torch.svd_lowrank(matrix, rank, niter=16)
        right = turned.T
    root = values.sqrt()
    return left * root, root[:, None] * right


def published(weights: Mapping[str, Tensor], first: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """An adapter for the untouched base: what was learnt less what it started with, as one product of twice the rank.

    W - s B0 A0 + s B A = W + s [B | -B0] [A ; A0], as PEFT converts PiSSA and OLoRA. `first` holds A0 and B0.
    """
    found = dict(weights)
    for name, value in weights.items():
        if name.endswith(".lora_A.weight"):
            found[name] = torch.cat([value, first[name].to(value)], dim=0)
        elif name.endswith(".lora_B.weight"):
            found[name] = torch.cat([value, -first[name].to(value)], dim=1)
    return found


def published_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """PEFT's config for twice the rank at the same scaling, for `published` weights."""
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
