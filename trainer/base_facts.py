"""Facts about a base model's folder, read from its config and tensor headers without loading any weights."""

import hashlib
import json
import math
import re
import struct
from pathlib import Path
from typing import Any

from trainer.base_files import SETTINGS, broken, is_seq2seq, read_json
from trainer.template_files import DEFAULT_TEMPLATE, additional_templates, has_chat_template

CHUNKS, CHUNK_BYTES = 256, 1 << 16  # the fingerprint hashes 16 MB of each weight file, in evenly spaced chunks
MAX_TOKENIZER_BYTES = 128 << 20
MAX_HEADER_BYTES = 64 << 20
MAX_CARD_BYTES = 64 << 10
DTYPES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}
WEIGHTS_INDEX = "model.safetensors.index.json"
WEIGHTS = "model.safetensors"
SHARD_NAME = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\.safetensors")

# Far above any real model. A config with larger sizes could only exhaust memory when it is loaded.
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

# Names of the same sizes in older families.
OTHER_NAMES = {
    "hidden_size": ("n_embd", "n_embed", "d_model"),
    "vocab_size": (),
    "num_hidden_layers": ("n_layer", "num_layers"),
    "num_attention_heads": ("n_head", "num_heads"),
    "max_position_embeddings": ("n_positions", "seq_length"),
}
RELATIVE_POSITIONS = ("t5", "mt5")  # no maximum length: n_positions is only what they were trained with
# Encoder–decoder families' names of the sizes.
SEQ2SEQ_NAMES = {
    "num_hidden_layers": ("encoder_layers",),
    "num_attention_heads": ("encoder_attention_heads",),
    "intermediate_size": ("d_ff", "encoder_ffn_dim"),
    "head_dim": ("d_kv",),
    "num_decoder_layers": ("decoder_layers", "num_hidden_layers"),
}


def inspect_folder(path: Path) -> dict[str, Any]:
    """Facts of a base model: architecture, sizes, dtype, bytes, license, context length.

    Raises TrainerError (`user_config`) naming what is missing, broken or not allowed. No code of the folder is run.
    """
    if not path.is_dir():
        raise broken(f"There is no folder {path}.", "Name a folder with a model.")
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
    values: dict[str, int] = {}  # by dtype
    for dtype, count in tensors.values():
        values[dtype] = values.get(dtype, 0) + count
    dominant = max(values, key=lambda name: values[name])
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
        "dtype": DTYPES.get(dominant, dominant),
    } | _seq2seq_facts(config)


def _seq2seq_facts(config: dict[str, Any]) -> dict[str, Any]:
    """Further facts of an encoder–decoder, where `layers` counts those of the encoder."""
    if not is_seq2seq(config):
        return {}
    gated = str(config.get("feed_forward_proj", "")).startswith("gated")
    return {"decoder_layers": config["num_decoder_layers"], "gated_mlp": gated}


def task_of(config: dict[str, Any]) -> str:
    return "seq2seq" if is_seq2seq(config) else "causal"


def read_task(path: Path) -> str:
    """The task of a base model: `causal` (decoder-only) or `seq2seq` (encoder–decoder)."""
    return task_of(read_config(path))


def refuse_code(path: Path) -> None:
    """Refuse Python files in the folder: a base model is data, and nothing of it is ever run."""
    code = sorted(one.name for one in path.glob("*.py"))
    if code:
        raise broken(f"The folder contains code ({code[0]}).", "Code of a model is never run here: choose another.")


def read_config(path: Path) -> dict[str, Any]:
    """config.json with normalised names, checked for a supported architecture, plausible sizes and no custom code."""
    config = read_json(path / "config.json")
    if "auto_map" in config:
        raise broken(
            "config.json requires custom code (auto_map).", "Choose a model that transformers supports itself."
        )
    if "quantization_config" in config:
        raise broken(
            "The weights are quantised already.", "Choose the unquantised model: jobs quantise it if asked to."
        )
    _normalise_names(config)
    _check_architecture(config)
    for name in ("hidden_size", "vocab_size", "num_hidden_layers"):
        if config[name] is None:
            raise broken(f"config.json has no {name}.", "Choose a plain text model.")
    for name, limit in SIZE_LIMITS.items():
        value = config.get(name)
        if value is not None and (not isinstance(value, int) or not 0 < value <= limit):
            raise broken(f"config.json has an impossible {name}.", "The file is damaged: fetch it again.")
    return config


def _normalise_names(config: dict[str, Any]) -> None:
    """Store each size under the name that is used here, None if the config does not have it."""
    for names in (OTHER_NAMES, SEQ2SEQ_NAMES) if is_seq2seq(config) else (OTHER_NAMES,):
        for name, others in names.items():
            if config.get(name) is None:
                config[name] = next((config[one] for one in others if one in config), None)
    if config.get("model_type") in RELATIVE_POSITIONS:
        config["max_position_embeddings"] = None


def _check_architecture(config: dict[str, Any]) -> None:
    names = config.get("architectures")
    first = str(names[0]) if isinstance(names, list) and names else ""
    suffix = "ForConditionalGeneration" if is_seq2seq(config) else "ForCausalLM"
    if not first.endswith((suffix, "LMHeadModel")):
        raise broken("config.json names no causal language model and no T5 or BART.", "Choose one for text generation.")


def weight_files(path: Path) -> list[Path]:
    """The safetensors files of the model: the shards listed in the index, or the single file."""
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
    """Each tensor's (dtype, number of values) from the headers of the weight files, and the files' total bytes."""
    tensors: dict[str, tuple[str, int]] = {}
    total = 0
    for file in weight_files(path):
        total += file.stat().st_size
        for name, entry in read_header(file).items():
            if name != "__metadata__":
                tensors[name] = _dtype_and_count(file, entry)
    if not tensors:
        raise broken("The weights contain no tensor.", "The file is damaged: fetch it again.")
    return tensors, total


def _dtype_and_count(file: Path, entry: dict[str, Any]) -> tuple[str, int]:
    dtype, shape = entry.get("dtype"), entry.get("shape")
    if isinstance(dtype, str) and isinstance(shape, list) and all(type(one) is int and one >= 0 for one in shape):
        return dtype, math.prod(shape)
    raise broken(f"The header of {file.name} is damaged.", "Fetch it again.")


def read_header(file: Path) -> dict[str, Any]:
    """The JSON header of a safetensors file, checked against the file's length."""
    damaged = broken(f"{file.name} is not a safetensors file, or is cut off.", "Fetch it again.")
    size = file.stat().st_size
    with file.open("rb") as opened:
        prefix = opened.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
        if not 0 < length <= min(MAX_HEADER_BYTES, size - 8):
            raise damaged
        try:
            header = json.loads(opened.read(length))
            end = max(entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__")
            unclaimed = size - (end + 8 + length)
        except (ValueError, RecursionError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise damaged from error
    if unclaimed:
        raise damaged
    checked: dict[str, Any] = header
    return checked


def read_license(path: Path) -> str:
    """The licence in the model card's front matter, empty if there is none."""
    card = path / "README.md"
    if not card.is_file():
        return ""
    with card.open("rb") as opened:
        text = opened.read(MAX_CARD_BYTES).decode("utf-8", errors="replace")
    front = re.match(r"---\n(.*?)\n---", text, flags=re.DOTALL)
    named = re.search(r"^license: *([A-Za-z0-9._-]{1,60})", front[1], flags=re.MULTILINE) if front else None
    return named[1] if named else ""


def fingerprint(base: Path) -> str:
    """A hash that identifies a base model: of its config, tokenizer, chat templates, and chunks of its weights."""
    digest = hashlib.sha256()
    for name in ("config.json", "tokenizer.json", SETTINGS, DEFAULT_TEMPLATE):
        if (base / name).is_file():
            digest.update(hashlib.sha256((base / name).read_bytes()).digest())
    for file in additional_templates(base):
        digest.update(f"{file.name} {hashlib.sha256(file.read_bytes()).hexdigest()}".encode())
    for file in weight_files(base):
        size = file.stat().st_size
        digest.update(f"{file.name} {size}".encode())
        with file.open("rb") as opened:
            for chunk in range(CHUNKS):
                opened.seek(chunk * max(0, size - CHUNK_BYTES) // (CHUNKS - 1))
                digest.update(opened.read(CHUNK_BYTES))
    return digest.hexdigest()
