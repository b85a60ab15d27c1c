"""The layers of a base model that can get LoRA, found without its weights."""

from typing import Any

import torch
from bitsandbytes.nn.modules import Linear4bit, Linear8bitLt
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

# PEFT refuses LoRA on this layer of theirs: a fused kernel takes its weight, and would pass the update by.
MAMBA = ("falcon_h1", "falcon_mamba", "mamba", "mamba2", "nemotron_h")
FUSED_IN_MAMBA = "out_proj"
NAMES_OF_EXPERTS = ("gate", "gate_proj", "up_proj", "down_proj", "w1", "w2", "w3")


def linear_paths(causal: Any) -> list[str]:
    """Paths of the layers that can get an update: every linear one but the output head and those PEFT refuses.

    Where experts are stacked, PEFT takes the names of their parts for parts of the stack, wherever else they stand.
    """
    head = causal.get_output_embeddings()
    taken = {*NAMES_OF_EXPERTS} if has_stacked_experts(causal) else set()
    if causal.config.model_type in MAMBA:
        taken.add(FUSED_IN_MAMBA)
    linear = [name for name, one in causal.named_modules() if one is not head and _is_linear(one)]
    return [name for name in linear if name.rpartition(".")[2] not in taken]


def has_stacked_experts(causal: Any) -> bool:
    """Whether experts lie in one tensor, of three dimensions, and not in linear layers."""
    return any(weight.ndim == 3 and "expert" in name for name, weight in causal.named_parameters())


def _is_linear(module: nn.Module) -> bool:
    """A class made from a linear layer may return something else, as routers of experts do."""
    if type(module) in (nn.Linear, Linear4bit, Linear8bitLt, Conv1D):
        return True
    if not isinstance(module, nn.Linear):
        return False
    with torch.no_grad():
        return isinstance(module(module.weight.new_zeros(1, module.in_features)), Tensor)
