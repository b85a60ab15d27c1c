"""The trainable parts of a base model and its context length, found without reading its weights."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

from trainer.adapter_files import layer_size
from trainer.adapter_own import parts_of
from trainer.base_facts import read_task
from trainer.base_parts import BaseParts
from trainer.stacked_lora import linear_layers


def layers_of(base: Path) -> BaseParts:
    """By the names adapters use. Raises what transformers raises for a config that makes no model."""
    config = AutoConfig.from_pretrained(base, local_files_only=True)
    kind: Any = AutoModelForSeq2SeqLM if read_task(base) == "seq2seq" else AutoModelForCausalLM
    with torch.device("meta"):
        # Explicit, since a config may name another attention, even one whose code would be fetched from the hub.
        model = kind.from_config(config, attn_implementation="eager")
    return parts_in(model)


def parts_in(model: Any) -> BaseParts:
    """Those of a model, whose weights may be on the meta device."""
    linears = linear_layers(model, model.get_output_embeddings())
    return parts_of(model, {name: layer_size(layer) for name, layer in linears.items()})


def context_length(config: Any) -> int | None:
    """The most tokens that a model reads and writes together, by its config in transformers.

    None where positions have no limit: relative ones (T5), or ALiBi (BLOOM).
    """
    return getattr(config, "max_position_embeddings", None) or None
