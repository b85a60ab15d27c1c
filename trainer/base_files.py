"""Small files of a base model's folder, read with a limit on their size, and the kind of model its config names."""

import json
from pathlib import Path
from typing import Any

from trainer.errors import TrainerError

MAX_CONFIG_BYTES = 1 << 20
MAX_SETTINGS_BYTES = 8 << 20  # of tokenizer_config.json, which lists every added token
MAX_TEMPLATE_BYTES = 1 << 20
SETTINGS = "tokenizer_config.json"
GENERATION = "generation_config.json"

# Encoder–decoder families.
SEQ2SEQ_TYPES = ("t5", "mt5", "bart", "pegasus")


def is_seq2seq(config: dict[str, Any]) -> bool:
    """Whether a config.json is that of a supported encoder–decoder model."""
    return config.get("model_type") in SEQ2SEQ_TYPES


def read_json(path: Path, limit: int = MAX_CONFIG_BYTES) -> dict[str, Any]:
    """The JSON object in a file of at most `limit` bytes. Raises TrainerError."""
    try:
        data = json.loads(_read(path, limit))
    except (ValueError, RecursionError) as error:
        raise broken(f"The file {path.name} is not valid JSON.", "It is damaged: fetch it again.") from error
    if not isinstance(data, dict):
        raise broken(f"The file {path.name} is not a JSON object.", "It is damaged: fetch it again.")
    return data


def read_json_if_any(path: Path, limit: int = MAX_CONFIG_BYTES) -> dict[str, Any]:
    """The same for a file that a folder need not have: empty if it is missing."""
    return read_json(path, limit) if path.is_file() else {}


def read_settings(folder: Path) -> dict[str, Any]:
    """tokenizer_config.json, empty if it is missing."""
    return read_json_if_any(folder / SETTINGS, MAX_SETTINGS_BYTES)


def read_template(path: Path) -> str:
    """A chat template's file. Raises TrainerError."""
    try:
        return _read(path, MAX_TEMPLATE_BYTES).decode("utf-8")
    except UnicodeDecodeError as error:
        raise broken(f"The file {path.name} is not UTF-8.", "It is damaged: fetch it again.") from error


def _read(path: Path, limit: int) -> bytes:
    if not path.is_file():
        raise broken(f"The file {path.name} is missing.", "Name the folder that holds the model's own files.")
    if path.stat().st_size > limit:
        raise broken(f"The file {path.name} is larger than {limit >> 10} kB.", "Check that it is the right file.")
    return path.read_bytes()


def broken(text: str, fix: str) -> TrainerError:
    return TrainerError("user_config", text, fix)
