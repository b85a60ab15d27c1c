"""Random LoRA adapters of a tiny base model, written by PEFT itself."""

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM


def load_tiny(base: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()


def load_with_peft(base: Path, adapter: Path) -> Any:
    return PeftModel.from_pretrained(load_tiny(base), adapter).eval()


def make_adapter(base: Path, folder: Path, *, seed: int, r: int = 4, **options: Any) -> Path:
    """An adapter whose B is not zero, strong enough to change what the model says."""
    options = {"target_modules": "all-linear", "lora_alpha": 2 * r, "task_type": "CAUSAL_LM"} | options
    model = get_peft_model(load_tiny(base), LoraConfig(r=r, **options))
    random = torch.Generator().manual_seed(seed)
    for name, values in model.named_parameters():
        if "lora_" in name:
            values.data = torch.randn(values.shape, generator=random) * 0.3
    model.save_pretrained(folder)
    return folder
