"""The base model as the peers take it: nf4 with double quantisation, and PEFT's LoRA on it."""

from typing import Any

import torch
from peft import LoraConfig
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from benchmarks.contenders.place import PLACE


def quantised(base: str, dtype: torch.dtype = torch.bfloat16, **better: Any) -> Any:
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    return AutoModelForCausalLM.from_pretrained(
        base, quantization_config=config, dtype=dtype, device_map={"": PLACE}, **better
    )


def lora_config(work: dict[str, Any]) -> LoraConfig:
    return LoraConfig(r=work["rank"], lora_alpha=work["alpha"], target_modules="all-linear", task_type="CAUSAL_LM")


def at_once(work: dict[str, Any]) -> int:
    """Rows that a peer that computes nothing again puts through the model together: on a GPU as many as one of 80 GB
    should hold in the shape of 8 B parameters."""
    return min(work["rows_a_step"], work["at_once"] or (16 if PLACE.type == "cuda" else 4))
