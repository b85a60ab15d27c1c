"""Tiny random base models of many families, made by transformers; what a family adds stands beside its name."""

import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from tests.tiny import make_tiny_base

SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
}
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 32}
FAMILIES: dict[str, dict[str, Any]] = {
    "gpt2": {},
    "bloom": {},
    "opt": {"ffn_dim": 128, "word_embed_proj_dim": 32},
    "gpt_neox": {},
    "llama": {},
    "qwen2": {},
    "qwen3": {"head_dim": 16},
    "mistral": {"sliding_window": 12},
    "gemma": {"head_dim": 16},
    "gemma2": {"head_dim": 16, "sliding_window": 12, "query_pre_attn_scalar": 16},
    "gemma3_text": {"head_dim": 16, "sliding_window": 12, "query_pre_attn_scalar": 16},
    "phi": {},
    "phi3": {},
    "falcon": {"alibi": False, "new_decoder_architecture": False, "multi_query": True},
    "gpt_oss": {
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "head_dim": 16,
        "sliding_window": 12,
        "layer_types": ["sliding_attention", "full_attention"],
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    },
    "glm4_moe": {
        **EXPERTS,
        "n_routed_experts": 4,
        "n_shared_experts": 1,
        "first_k_dense_replace": 1,
        "head_dim": 16,
        "n_group": 1,
        "topk_group": 1,
    },
    "qwen2_moe": {**EXPERTS, "num_experts": 4, "shared_expert_intermediate_size": 32},
    "mixtral": {"num_local_experts": 4},
    "hunyuan_v1_moe": {"head_dim": 16, "num_experts": 4, "moe_topk": 2},
}
# Without attention: nothing to compare with eager attention, and rows that are never packed.
RECURRENT: dict[str, dict[str, Any]] = {"mamba": {"state_size": 4}}


def make_family(folder: Path, name: str, **changed: Any) -> Path:
    """Write a tiny model of a family into `folder`, weights large enough that a mistake shows; returns the folder."""
    make_tiny_base(folder)
    (folder / "model.safetensors").unlink()
    config = AutoConfig.for_model(name, vocab_size=384, **{**SIZES, **(FAMILIES | RECURRENT)[name], **changed})
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for path, weight in model.named_parameters():
            if weight.dim() > 1:
                weight.normal_(0, 0.15)
            elif "norm" not in path:
                weight.normal_(0, 0.1)
    shutil.rmtree(folder / "made", ignore_errors=True)
    model.save_pretrained(folder)
    return folder
