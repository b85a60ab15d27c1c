"""Tiny random encoder–decoder base models, made by transformers, with a tokenizer as their families have it."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing
from transformers import AutoConfig, AutoModelForSeq2SeqLM

from tests.tiny import SPECIAL, make_tiny_base

PAD, BEGIN, END = SPECIAL
COMMON: dict[str, Any] = {"vocab_size": 384, "d_model": 64, "pad_token_id": 0, "eos_token_id": 2}
T5 = {"d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4, "dropout_rate": 0.0, "decoder_start_token_id": 0}
BART = {
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 128,
    "decoder_ffn_dim": 128,
    "max_position_embeddings": 256,
    "dropout": 0.0,
    "bos_token_id": 1,
    "decoder_start_token_id": 2,
    "forced_eos_token_id": None,
}
SEQ2SEQ: dict[str, dict[str, Any]] = {
    "t5": T5,
    "mt5": {**T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "num_decoder_layers": 3},
    "bart": BART,
    "pegasus": BART,
}
AROUND = {"bart": f"{BEGIN} $A {END}"}  # the others end a text, and nothing more


def make_seq2seq(folder: Path, name: str = "t5", *, template: str = "", **changed: Any) -> Path:
    """Write a tiny model of a family into `folder`, weights large enough that a mistake shows; returns the folder."""
    make_tiny_base(folder, template=template or "none")
    if not template:
        (folder / "chat_template.jinja").unlink()
    for old in ("model.safetensors", "generation_config.json"):
        (folder / old).unlink()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    ends = [(token, tokenizer.token_to_id(token)) for token in (BEGIN, END)]
    tokenizer.post_processor = TemplateProcessing(single=AROUND.get(name, f"$A {END}"), special_tokens=ends)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = AutoConfig.for_model(name, **{**COMMON, **SEQ2SEQ[name], **changed})
    torch.manual_seed(0)
    model = AutoModelForSeq2SeqLM.from_config(config)
    with torch.no_grad():
        for path, weight in model.named_parameters():
            if weight.dim() > 1:
                weight.normal_(0, 0.15)
            elif "norm" not in path:
                weight.normal_(0, 0.1)
        if name in ("bart", "pegasus"):
            model.final_logits_bias.normal_(0, 0.5)
    model.save_pretrained(folder)
    return folder
