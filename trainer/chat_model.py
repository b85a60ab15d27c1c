"""Loads a base model for answering: number format by device, weights whole or quantised, never any code of its own."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig
from transformers.utils import logging as transformers_logging

from trainer.base_facts import inspect_folder
from trainer.spec import Dtype, Quantization

DTYPES: dict[str, torch.dtype] = {
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float32": torch.float32,
}


def load_base(folder: Path, *, dtype: Dtype = "auto", quantization: Quantization = "none") -> Any:
    """The model on the best device, ready to answer. Raises TrainerError when the folder is no usable base model."""
    inspect_folder(folder)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    number_format = DTYPES[dtype] if dtype != "auto" else fastest_dtype(device)
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    model: Any = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=number_format,
        attn_implementation="sdpa",
        device_map={"": device},
        quantization_config=_quantization(quantization, number_format),
        local_files_only=True,
        use_safetensors=True,
    )
    return model.requires_grad_(requires_grad=False).eval()


def fastest_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the hardware computes in it: elsewhere it is emulated, and slower than float32."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    has_bfloat16 = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if has_bfloat16 else torch.float32


def _quantization(name: Quantization, dtype: torch.dtype) -> Any:
    if name == "nf4":
        return BitsAndBytesConfig(  # type: ignore[no-untyped-call]
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
    return BitsAndBytesConfig(load_in_8bit=True) if name == "int8" else None  # type: ignore[no-untyped-call]
