"""Makes the request for a new job from a spec file and the options beside it."""

import argparse
from pathlib import Path
from typing import Any

import yaml

from lowrank.client import Client
from lowrank.datasets import existing
from lowrank.failures import WrongUse
from lowrank.uploading import send

WIRE = ("training_file", "validation_file", "hyperparameters", "suffix", "spec", "preset", "metadata", "seed")
FILE_ID = "file-"


def request_of(given: argparse.Namespace, client: Client) -> dict[str, Any]:
    """The body; local files that it names are sent first, once everything else of it has been read."""
    values = _read(given.file) if given.file else {}
    body = _as_wire(values) if not set(values) & set(WIRE) else dict(values)
    own = {"model": given.model, "training_file": given.dataset, "validation_file": given.validation}
    own |= {"suffix": given.name, "preset": given.preset}
    body |= {name: value for name, value in own.items() if value}
    for name, option in (("model", "--model"), ("training_file", "--dataset")):
        if not isinstance(body.get(name), str) or not body[name]:
            raise WrongUse(f"The job has no {name.replace('_', ' ')}. Name it in the file, or with {option}.")
    names = [name for name in ("training_file", "validation_file") if body.get(name)]
    files = {name: _local(str(body[name]), given.file) for name in names}
    sent = {name: send(client, file)["id"] for name, file in files.items() if file}
    return body | sent


def _read(name: str) -> dict[str, Any]:
    try:
        values = yaml.safe_load(existing(name).read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise WrongUse(f"{name} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise WrongUse(f"{name} must hold a spec: parts such as model, data and lora.")
    return values


def _as_wire(spec: dict[str, Any]) -> dict[str, Any]:
    """A spec as `python -m trainer train` takes it: its base model and its paths go into fields of their own."""
    parts = {part: dict(inner) if isinstance(inner, dict) else inner for part, inner in spec.items()}
    said = (("model", "model", "base"), ("training_file", "data", "path"), ("validation_file", "data", "holdout_path"))
    body: dict[str, Any] = {}
    for field, part, name in said:
        inner = parts.get(part)
        if isinstance(inner, dict) and (value := inner.pop(name, None)):
            body[field] = value
    model = parts.get("model")
    if isinstance(model, dict):
        model.pop("revision", None)  # the server's base models have theirs
    return body | ({"spec": parts} if parts else {})


def _local(name: str, beside: str | None) -> Path | None:
    """The file to send; None for one that the server has. Paths count from where the spec lies, then from here."""
    if name.startswith(FILE_ID):
        return None
    places = [Path(beside).parent / name] if beside else []
    found = next((place for place in [*places, Path(name)] if place.is_file()), None)
    return found or existing(name)
