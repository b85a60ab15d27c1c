"""Base models with random weights in the shapes of known ones: `-m … SHAPE TOKENIZER FOLDER`.

The tokenizer is that of another base; its tokens lie below the vocabulary, which keeps its size. In a process of its
own: the one that measures stays small.
"""

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

SHAPES = {
    "8b": {  # Llama-3-8B
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
        "tie_word_embeddings": False,
    },
    "135m": {  # SmolLM2-135M
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "vocab_size": 49152,
        "tie_word_embeddings": True,
    },
    "tiny": {  # to try the way there in seconds; as many words as its tokenizer has
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "tie_word_embeddings": True,
    },
}
CONTEXT, SPREAD, NUMBER_BYTES = 8192, 0.02, 2  # tokens; of the random values; bfloat16
SHARD_BYTES = 2 << 30
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json")


def make_base(shape: str, tokenizer: Path, folder: Path) -> None:
    """Write config, tokenizer and weights in bfloat16; no more than one shard of them is ever in memory."""
    vocabulary = Tokenizer.from_file(str(tokenizer / "tokenizer.json")).get_vocab_size()
    values = {"vocab_size": vocabulary, **SHAPES[shape]}
    if vocabulary > values["vocab_size"]:
        sys.exit(f"{tokenizer} has {vocabulary:,} tokens, more than the shape {shape} has room for.")
    folder.mkdir(parents=True)
    for name in TOKENIZER:
        if (tokenizer / name).is_file():
            shutil.copyfile(tokenizer / name, folder / name)
    config = LlamaConfig(
        **values,
        max_position_embeddings=CONTEXT,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
        architectures=["LlamaForCausalLM"],
        dtype="bfloat16",
    )
    config.save_pretrained(folder)
    with torch.device("meta"):  # names and sizes alone
        sizes = {name: one.shape for name, one in LlamaForCausalLM(config).named_parameters()}
    shards = list(_shards(sizes))
    files = [f"model-{number:05}-of-{len(shards):05}.safetensors" for number in range(1, len(shards) + 1)]
    torch.manual_seed(0)
    for file, names in zip(files, shards, strict=True):
        save_file({name: _weight(sizes[name]) for name in names}, folder / file, metadata={"format": "pt"})
    index = {
        "metadata": {"total_size": sum(map(_bytes, sizes.values()))},
        "weight_map": {name: file for file, names in zip(files, shards, strict=True) for name in names},
    }
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1))


def _shards(sizes: dict[str, torch.Size]) -> Iterator[list[str]]:
    """The names of weights in order, as many in a shard as it has room for."""
    names: list[str] = []
    for name, size in sizes.items():
        if names and sum(_bytes(sizes[one]) for one in names) + _bytes(size) > SHARD_BYTES:
            yield names
            names = []
        names.append(name)
    yield names


def _bytes(size: torch.Size) -> int:
    return size.numel() * NUMBER_BYTES


def _weight(size: torch.Size) -> torch.Tensor:
    """Norms begin at one; all else is drawn, on a GPU where there is one, for eight billion numbers take minutes."""
    place = "cuda" if torch.cuda.is_available() else "cpu"
    weight = torch.ones(size, dtype=torch.bfloat16, device=place)
    return (weight.normal_(0.0, SPREAD) if len(size) > 1 else weight).cpu()


if __name__ == "__main__":
    make_base(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
