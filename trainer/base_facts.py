"""What a base model's folder holds, read without loading a weight: its facts, or what is missing."""

import hashlib
import json
import math
import re
import struct
from pathlib import Path
from typing import Any

from trainer.errors import TrainerError

PIECES, PIECE_BYTES = 256, 1 << 16  # evenly spaced, of each weight file: 16 MB stand for it
MAX_CONFIG_BYTES = 1 << 20
MAX_TOKENIZER_BYTES = 128 << 20
MAX_HEADER_BYTES = 64 << 20
MAX_CARD_BYTES = 64 << 10
DTYPES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}
WEIGHTS_INDEX = "model.safetensors.index.json"
WEIGHTS = "model.safetensors"
SHARD_NAME = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\.safetensors")

# Upper ends that no real model comes near: a config beyond them would only make a loader take all memory.
SIZE_LIMITS = {
    "hidden_size": 1 << 17,
    "intermediate_size": 1 << 20,
    "vocab_size": 1 << 21,
    "num_hidden_layers": 1 << 10,
    "num_decoder_layers": 1 << 10,
    "num_attention_heads": 1 << 12,
    "num_key_value_heads": 1 << 12,
    "head_dim": 1 << 12,
    "max_position_embeddings": 1 << 25,
}


# What older families call the same sizes.
OTHER_NAMES = {
    "hidden_size": ("n_embd", "n_embed", "d_model"),
    "vocab_size": (),
    "num_hidden_layers": ("n_layer", "num_layers"),
    "num_attention_heads": ("n_head", "num_heads"),
    "max_position_embeddings": ("n_positions", "seq_length"),
}
# Families in which an encoder reads and a decoder writes, and what they call its sizes.
SEQ2SEQ_TYPES = ("t5", "mt5", "bart", "pegasus")
NO_LAST_POSITION = ("t5", "mt5")  # positions are told by distance: n_positions is but what it was trained on
SEQ2SEQ_NAMES = {
    "num_hidden_layers": ("encoder_layers",),
    "num_attention_heads": ("encoder_attention_heads",),
    "intermediate_size": ("d_ff", "encoder_ffn_dim"),
    "head_dim": ("d_kv",),
    "num_decoder_layers": ("decoder_layers", "num_hidden_layers"),
}


def inspect_folder(path: Path) -> dict[str, Any]:
    """Facts of a base model: architecture, sizes, dtype, bytes, license, context length.

    Raises TrainerError (`user_config`) naming what is missing, broken or not allowed. Nothing of the folder is run.
    """
    if not path.is_dir():
        raise broken(f"There is no folder {path}.", "Name a folder that holds a model.")
    refuse_code(path)
    config = read_config(path)
    if not (path / "tokenizer.json").is_file():
        raise broken("The file tokenizer.json is missing.", "Save the model's fast tokenizer beside its weights.")
    if (path / "tokenizer.json").stat().st_size > MAX_TOKENIZER_BYTES:
        raise broken("The file tokenizer.json is too large.", f"Use one under {MAX_TOKENIZER_BYTES >> 20} MB.")
    tensors, weight_bytes = read_tensors(path)
    return _facts(config, tensors) | {
        "bytes": weight_bytes,
        "license": read_license(path),
        "has_chat_template": has_chat_template(path),
    }


def _facts(config: dict[str, Any], tensors: dict[str, tuple[str, int]]) -> dict[str, Any]:
    values_in: dict[str, int] = {}
    for dtype, count in tensors.values():
        values_in[dtype] = values_in.get(dtype, 0) + count
    commonest = max(values_in, key=lambda name: values_in[name])
    return {
        "architecture": str(config["architectures"][0]),
        "task": task_of(config),
        "parameters": sum(count for _, count in tensors.values()),
        "layers": config["num_hidden_layers"],
        "hidden_size": config["hidden_size"],
        "intermediate_size": config.get("intermediate_size"),
        "vocab_size": config["vocab_size"],
        "heads": config.get("num_attention_heads"),
        "kv_heads": config.get("num_key_value_heads", config.get("num_attention_heads")),
        "head_dim": config.get("head_dim"),
        "context_length": config.get("max_position_embeddings"),
        "softcapped": bool(config.get("attn_logit_softcapping")),
        "tied_embeddings": bool(config.get("tie_word_embeddings", True)),
        "dtype": DTYPES.get(commonest, commonest),
    } | _of_seq2seq(config)


def _of_seq2seq(config: dict[str, Any]) -> dict[str, Any]:
    """What an encoder–decoder has besides: `layers` counts those of one side, the encoder."""
    if not is_seq2seq(config):
        return {}
    gated = str(config.get("feed_forward_proj", "")).startswith("gated")
    return {"decoder_layers": config["num_decoder_layers"], "gated_mlp": gated}


def is_seq2seq(config: dict[str, Any]) -> bool:
    """Whether a config.json is that of an encoder–decoder model known here."""
    return config.get("model_type") in SEQ2SEQ_TYPES


def task_of(config: dict[str, Any]) -> str:
    return "seq2seq" if is_seq2seq(config) else "causal"


def read_task(path: Path) -> str:
    """What a base model of a folder does: `causal` continues a text, `seq2seq` reads one and then writes another."""
    return task_of(read_config(path))


def refuse_code(path: Path) -> None:
    """A base model is data. Python files beside it mean that somebody expects them to be run."""
    code = sorted(one.name for one in path.glob("*.py"))
    if code:
        raise broken(
            f"The folder holds program code ({code[0]}).", "Code of a model is never run here: choose another."
        )


def read_config(path: Path) -> dict[str, Any]:
    """config.json, checked to name an architecture and sane sizes, and no code of its own."""
    config = read_json(path / "config.json", MAX_CONFIG_BYTES)
    if "auto_map" in config:
        raise broken("config.json asks for program code (auto_map).", "Choose a model that transformers knows itself.")
    if "quantization_config" in config:
        raise broken(
            "The weights are quantised already.", "Choose the model's full weights: jobs quantise by themselves."
        )
    _use_one_name(config)
    _check_architecture(config)
    for name in ("hidden_size", "vocab_size", "num_hidden_layers"):
        if config[name] is None:
            raise broken(f"config.json has no {name}.", "Choose a plain text model.")
    for name, limit in SIZE_LIMITS.items():
        value = config.get(name)
        if value is not None and (not isinstance(value, int) or not 0 < value <= limit):
            raise broken(f"config.json has an impossible {name}.", "The file is damaged: fetch it again.")
    return config


def _use_one_name(config: dict[str, Any]) -> None:
    """Put each size under the one name that is used here; None where the config does not tell it."""
    for names in (OTHER_NAMES, SEQ2SEQ_NAMES) if is_seq2seq(config) else (OTHER_NAMES,):
        for name, others in names.items():
            if config.get(name) is None:
                config[name] = next((config[one] for one in others if one in config), None)
    if config.get("model_type") in NO_LAST_POSITION:
        config["max_position_embeddings"] = None


def _check_architecture(config: dict[str, Any]) -> None:
    names = config.get("architectures")
    first = str(names[0]) if isinstance(names, list) and names else ""
    ends = ("ForConditionalGeneration",) if is_seq2seq(config) else ("ForCausalLM",)
    if not first.endswith((*ends, "LMHeadModel")):
        raise broken("config.json names no causal language model and no T5 or BART.", "Choose one for text generation.")


def read_json(path: Path, limit: int) -> dict[str, Any]:
    """A JSON object of at most `limit` bytes. Raises TrainerError."""
    if not path.is_file():
        raise broken(f"The file {path.name} is missing.", "Name the folder that holds the model's own files.")
    if path.stat().st_size > limit:
        raise broken(f"The file {path.name} is larger than {limit >> 10} kB.", "It is no such file: check the folder.")
    try:
        data = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise broken(f"The file {path.name} is no JSON.", "It is damaged: fetch it again.") from error
    if not isinstance(data, dict):
        raise broken(f"The file {path.name} holds no JSON object.", "It is damaged: fetch it again.")
    return data


def weight_files(path: Path) -> list[Path]:
    """The safetensors files the model is loaded from: the index's shards, or the one file."""
    if (path / WEIGHTS_INDEX).is_file():
        weight_map = read_json(path / WEIGHTS_INDEX, MAX_HEADER_BYTES).get("weight_map")
        names = sorted(set(map(str, weight_map.values()))) if isinstance(weight_map, dict) else []
    else:
        names = [WEIGHTS]
    if bad := [name for name in names if not SHARD_NAME.fullmatch(name)]:
        raise broken(f"{WEIGHTS_INDEX} names a file {bad[0]!r:.80}.", "It is damaged: fetch it again.")
    missing = [name for name in names if not (path / name).is_file()]
    if missing or not names:
        name = missing[0] if missing else WEIGHTS
        raise broken(f"The weights {name} are missing.", "Only safetensors are read: convert other formats first.")
    return [path / name for name in names]


def read_tensors(path: Path) -> tuple[dict[str, tuple[str, int]], int]:
    """Every tensor's (dtype, number of values) from the headers of the weight files, and the files' bytes."""
    tensors: dict[str, tuple[str, int]] = {}
    total = 0
    for file in weight_files(path):
        total += file.stat().st_size
        for name, entry in read_header(file).items():
            if name != "__metadata__":
                tensors[name] = _dtype_and_count(file, entry)
    if not tensors:
        raise broken("The weights hold no tensor.", "The file is damaged: fetch it again.")
    return tensors, total


def _dtype_and_count(file: Path, entry: dict[str, Any]) -> tuple[str, int]:
    """Of a tensor, by its entry in the header of a file."""
    dtype, shape = entry.get("dtype"), entry.get("shape")
    if isinstance(dtype, str) and isinstance(shape, list) and all(type(one) is int and one >= 0 for one in shape):
        return dtype, math.prod(shape)
    raise broken(f"The header of {file.name} is damaged.", "Fetch it again.")


def read_header(file: Path) -> dict[str, Any]:
    """The JSON header of a safetensors file, checked against the file's length."""
    damaged = broken(f"{file.name} is no safetensors file, or is cut off.", "Fetch it again.")
    size = file.stat().st_size
    with file.open("rb") as opened:
        start = opened.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 0 < length <= min(MAX_HEADER_BYTES, size - 8):
            raise damaged
        try:
            header = json.loads(opened.read(length))
            end = max(entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__")
            left_over = size - (end + 8 + length)
        except (ValueError, RecursionError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise damaged from error
    if left_over:
        raise damaged
    checked: dict[str, Any] = header
    return checked


def read_license(path: Path) -> str:
    """The licence named in the model card's front matter, empty when there is none."""
    card = path / "README.md"
    if not card.is_file():
        return ""
    with card.open("rb") as opened:
        text = opened.read(MAX_CARD_BYTES).decode("utf-8", errors="replace")
    front = re.match(r"---\n(.*?)\n---", text, flags=re.DOTALL)
    named = re.search(r"^license: *([A-Za-z0-9._-]{1,60})", front[1], flags=re.MULTILINE) if front else None
    return named[1] if named else ""


def has_chat_template(path: Path) -> bool:
    if (path / "chat_template.jinja").is_file():
        return True
    settings = path / "tokenizer_config.json"
    return settings.is_file() and bool(read_json(settings, MAX_CONFIG_BYTES * 8).get("chat_template"))


def broken(text: str, fix: str) -> TrainerError:
    return TrainerError("user_config", text, fix)


def fingerprint(base: Path) -> str:
    """A hash that tells base models apart: config, tokenizer, template, and pieces from all over the weights."""
    found = hashlib.sha256()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        if (base / name).is_file():
            found.update(hashlib.sha256((base / name).read_bytes()).digest())
    for file in weight_files(base):
        size = file.stat().st_size
        found.update(f"{file.name} {size}".encode())
        with file.open("rb") as opened:
            for piece in range(PIECES):
                opened.seek(piece * max(0, size - PIECE_BYTES) // (PIECES - 1))
                found.update(opened.read(PIECE_BYTES))
    return found.hexdigest()
