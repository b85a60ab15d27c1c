"""Loads an adapter for a base model, and refuses a file whose tensors are not exactly those its config implies."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from bitsandbytes.nn.modules import Linear4bit, Linear8bitLt
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers.pytorch_utils import Conv1D

from trainer.adapter_format import (
    CONFIG,
    LARGEST,
    PREFIX,
    WEIGHTS,
    Entry,
    LayerSize,
    LoraConfig,
    check_entries,
    read_config,
    refused,
)
from trainer.adapter_own import OverrideReader
from trainer.stacked_lora import Linear, LoraPair, LoraWeights, in_out_features

Layers = Mapping[str, Linear]  # by the layer's name


def layer_size(layer: Linear) -> LayerSize:
    return LayerSize(*in_out_features(layer), layer.bias is not None)


def load_adapter(
    folder: Path, layers: Layers, *, device: torch.device, dtype: torch.dtype, model: nn.Module | None = None
) -> LoraWeights:
    """The adapter's weights by layer. Raises TrainerError unless the folder is a valid adapter of this base.

    Overrides of whole modules (`trainer.own_modules`) are only read if the base's `model` is given.
    """
    config = read_config(folder / CONFIG)
    sizes = {name: layer_size(layer) for name, layer in layers.items()}
    if model is None and config.own_modules:
        raise refused("The adapter has full modules, and only LoRA updates are read here.", "Load it in plain PEFT.")
    overrides = OverrideReader(config, model, sizes) if model is not None else None
    file = folder / WEIGHTS
    if not file.is_file():
        raise refused(f"{WEIGHTS} is missing.", "Restore the adapter, or train it again.")
    try:
        with safe_open(file, framework="pt") as opened:
            targeted = check_entries(_entries(opened), sizes, config, overrides.shapes if overrides else {})
            found: LoraWeights = {name: _pair(opened, name, layers[name], config, (device, dtype)) for name in targeted}
            if overrides is not None:
                found |= overrides.read(lambda key, kind: _tensor(opened, key, device, kind))
            return found
    except SafetensorError as error:
        raise refused(f"{WEIGHTS} is not a safetensors file, or is cut off.", "Restore the adapter.") from error


def _pair(
    opened: Any, name: str, layer: Linear, config: LoraConfig, wanted: tuple[torch.device, torch.dtype]
) -> LoraPair:
    """One layer's LoRA, with DoRA (Liu et al. 2024, arxiv.org/abs/2402.09353) folded in.

    DoRA scales the outputs by m / |W + s B A|, the same for every token. The factor is computed once and multiplied
    into B; less one it is the change to the base's own output.
    """
    values = {key: _tensor(opened, key, *wanted) for key in config.shapes(name, layer_size(layer))}
    key = f"{PREFIX}{name}."
    a, b, scaling = values[f"{key}lora_A.weight"], values[f"{key}lora_B.weight"], config.scaling_of(name)
    bias, magnitude_delta = values.get(f"{key}base_layer.bias"), None
    bias_delta = bias - layer.bias.to(bias) if bias is not None and layer.bias is not None else None
    if config.use_dora:
        norm = torch.linalg.norm(dequantized_weight(layer).to(wanted[0]) + scaling * b.float() @ a.float(), dim=1)
        factor = values[f"{key}lora_magnitude_vector"] / norm.to(wanted[1])
        b, magnitude_delta = factor[:, None] * b, factor - 1
    return LoraPair(a, b, scaling, magnitude_delta, bias_delta)


@torch.no_grad()
def dequantized_weight(layer: Linear) -> torch.Tensor:
    """A layer's weight as (out, in) in float32, however it is stored."""
    if isinstance(layer, (Linear4bit, Linear8bitLt)):
        # Some are repacked at their first use, so the weight is read off the output for the identity matrix. forward()
        # bypasses the hooks, which would add the adapter of a running batch.
        dtype = torch.float32 if layer.bias is None else layer.bias.dtype
        unit = torch.eye(layer.in_features, device=layer.weight.device, dtype=dtype)
        out: torch.Tensor = layer.forward(unit)
        return (out - layer.bias if layer.bias is not None else out).T.float()
    return (layer.weight.T if isinstance(layer, Conv1D) else layer.weight).float()


def _entries(opened: Any) -> dict[str, Entry]:
    slices = {key: opened.get_slice(key) for key in opened.keys()}  # noqa: SIM118 # not a dictionary
    return {key: Entry(one.get_dtype(), one.get_shape()) for key, one in slices.items()}


def _tensor(opened: Any, key: str, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    values: torch.Tensor = opened.get_tensor(key)
    largest = float(values.abs().amax()) if values.numel() else 0.0
    if not largest <= LARGEST:  # also false for NaN
        raise refused(f"{key!r:.160} contains a value that is not finite or far too large.", "Train it again.")
    # A copy also on the CPU: the file's memory map must not outlive the file.
    return values.to(device=device, dtype=dtype, copy=True)
