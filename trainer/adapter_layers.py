"""The layers of a base model that an adapter can change, found without reading a weight of it."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

from trainer.adapter_files import layer_size
from trainer.adapter_format import LayerSize
from trainer.base_facts import read_task
from trainer.stacked_lora import linear_layers


def layers_of(base: Path) -> dict[str, LayerSize]:
    """Every linear layer of a base model but its output head, by the name that adapters know it by."""
    config = AutoConfig.from_pretrained(base, local_files_only=True)
    kind: Any = AutoModelForSeq2SeqLM if read_task(base) == "seq2seq" else AutoModelForCausalLM
    with torch.device("meta"):
        model = kind.from_config(config)
    return {name: layer_size(layer) for name, layer in linear_layers(model, model.get_output_embeddings()).items()}
