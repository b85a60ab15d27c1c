"""Imports an untrusted adapter: checks it against its base model, validates its weights and rewrites its config."""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from trainer.adapter_archive import METRICS, PICKLE_STARTS, SPEC, unpack
from trainer.adapter_format import (
    CONFIG,
    IGNORED_FIELDS,
    LARGEST,
    MANIFEST,
    PLAIN_NAME,
    PREFIX,
    WEIGHTS,
    Entry,
    LayerSize,
    LoraConfig,
    check_entries,
    read_config,
    read_object,
    refused,
)
from trainer.base_facts import read_header, read_task
from trainer.base_parts import BaseParts, own_shapes
from trainer.base_source import source_of
from trainer.errors import TrainerError
from trainer.formats.containers.packed import ZIP
from trainer.manifest import FORMAT, sha256_of, verify
from trainer.spec import SpecError, TrainSpec
from trainer.tokenizer_copy import copy_tokenizer

BYTES = {"F32": 4, "F16": 2, "BF16": 2}
CHUNK = 1 << 22
FIX_WEIGHTS = "Save the adapter again with PEFT, and send that."
# Values of init_lora_weights (besides true and false) that leave the base's weights as they are.
SAFE_INITS = (None, "gaussian", "orthogonal")
LORA_A_SUFFIX = ".lora_A.weight"
MAX_INTEGER = 1 << 53  # larger ones are not exact as floats, and no metric is that large
# Metrics that are taken over from our own manifest, if they are numbers.
METRIC_FIELDS = (
    "steps", "planned_steps", "published_step", "loss", "trained_tokens", "seconds", "peak_memory_bytes",
    "evaluation_loss", "perplexity", "accuracy", "margin", "evaluation_loss_before", "evaluation_rows",
    "general_kl", "general_perplexity", "general_perplexity_before",
)  # fmt: skip
LORA_FIELDS = (
    "r", "lora_alpha", "lora_dropout", "bias", "use_rslora", "use_dora", "rank_pattern", "alpha_pattern",
    "modules_to_save", "trainable_token_indices",
)  # fmt: skip


def unpack_sent(sent: Path, out: Path, *, limit: int) -> dict[str, Any]:
    """Unpack an upload into `out`/adapter. Returns what its config calls its base model.

    `sent` contains files called 0, 1, …, and names.json with their original names. Raises TrainerError.
    """
    names = json.loads((sent / "names.json").read_text(encoding="utf-8"))
    if len(set(names)) < len(names):
        raise refused("Two of the files have the same name.", "Send each file of the adapter once.")
    folder = out / "adapter"
    folder.mkdir()
    unpack({name: sent / str(number) for number, name in enumerate(names)}, folder, limit=limit)
    named = read_object(folder / CONFIG).get("base_model_name_or_path")
    return {"base": named[:500] if isinstance(named, str) else ""}


def import_folder(folder: Path, base: Path, parts: BaseParts) -> dict[str, Any]:
    """Check a folder's adapter against a base model and give it the form of one trained here. Returns its facts.

    The config is rebuilt from known fields, and tokenizer and chat template are replaced by the base's own. Spec and
    metrics are kept only if a manifest of Lowrank lists them. Raises TrainerError (`user_config`).
    """
    ours = _own_manifest(folder)
    data = _resolve_target_pattern(folder, parts.layers)
    config = read_config(folder / CONFIG)
    _check_init(data.get("init_lora_weights", True))
    header = _read_weights_header(folder / WEIGHTS)
    targeted = check_entries(_entries(header), parts.layers, config, own_shapes(config, parts))
    _check_values(folder / WEIGHTS, header)
    name, revision = source_of(base)
    base_fields = {"base_model_name_or_path": name, "revision": revision or None}
    _write_json(folder / CONFIG, _rebuilt(data, config) | base_fields)
    copy_tokenizer(base, folder)
    spec = _kept_spec(folder) if ours else {}
    if not spec:
        for file in (SPEC, METRICS):
            (folder / file).unlink(missing_ok=True)
    facts = {"imported": True, "base": name, "base_revision": revision, "task": read_task(base)}
    _write_manifest(folder, (ours if spec else None) or {"format": FORMAT, **facts})
    return {
        "spec": spec or {"model": {"base": name, "revision": revision}, "lora": _lora_values(data, config, targeted)},
        "metrics": _metrics(ours if spec else None)
        | {"weights_sha256": sha256_of(folder / WEIGHTS), "parameters": _parameter_count(header)},
    }


def _own_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest, if it is one of Lowrank's and all files match it."""
    try:
        return verify(folder, name=MANIFEST)
    except TrainerError:
        return None


def _resolve_target_pattern(folder: Path, layers: Mapping[str, LayerSize]) -> dict[str, Any]:
    """The config. If target_modules is a regular expression, it is replaced by the layers that have weights.

    It is never matched: an untrusted expression could backtrack without end.
    """
    data = read_object(folder / CONFIG)
    if isinstance(data.get("target_modules"), str):
        header = _read_weights_header(folder / WEIGHTS)
        names = {key.removeprefix(PREFIX).removesuffix(LORA_A_SUFFIX) for key in header if key.endswith(LORA_A_SUFFIX)}
        if named := sorted(names & layers.keys()):
            data["target_modules"] = named
            _write_json(folder / CONFIG, data)
    return data


def _check_init(init: Any) -> None:
    """Refuse inits such as PiSSA that change the base's weights: the update in the file is one of the changed base."""
    if not isinstance(init, bool) and init not in SAFE_INITS:
        text = f"{CONFIG} sets init_lora_weights to {init!r:.40}: its update is for changed base weights."
        raise refused(text, "Save it with save_pretrained(folder, path_initial_model_for_weight_conversion=…).")


def _read_weights_header(file: Path) -> dict[str, Any]:
    with file.open("rb") as opened:
        start = opened.read(10)
        if start[:4] == ZIP or (start.startswith(PICKLE_STARTS) and start[8:] != b'{"'):
            raise refused(f"{WEIGHTS} is a pickle under another name, and pickles are never opened here.", FIX_WEIGHTS)
    try:
        header = read_header(file)
    except TrainerError as error:
        raise refused(error.text, FIX_WEIGHTS) from error
    header.pop("__metadata__", None)
    return header


def _entries(header: Mapping[str, Any]) -> dict[str, Entry]:
    """The header's tensors. Checks that they are contiguous and as long as their shapes need."""
    entries, end = {}, 0
    damaged = refused(f"{WEIGHTS} is damaged: its header does not match its contents.", FIX_WEIGHTS)
    try:
        for name, entry in sorted(header.items(), key=lambda one: one[1]["data_offsets"]):
            dtype, shape, (start, stop) = entry["dtype"], entry["shape"], entry["data_offsets"]
            if not all(type(one) is int and one >= 0 for one in (*shape, start, stop)) or start != end:
                raise damaged
            if dtype in BYTES and stop - start != math.prod(shape) * BYTES[dtype]:
                raise damaged
            entries[name], end = Entry(str(dtype), list(shape)), stop
    except (KeyError, TypeError, ValueError) as error:
        raise damaged from error
    return entries


def _check_values(file: Path, header: Mapping[str, Any]) -> None:
    """Check that every value is finite and of a plausible size. Read in chunks."""
    with file.open("rb") as opened:
        start = 8 + int.from_bytes(opened.read(8), "little")
        for name, entry in header.items():
            begin, end = entry["data_offsets"]
            opened.seek(start + begin)
            for values in _chunks(opened, end - begin, entry["dtype"]):
                if not float(np.abs(values).max()) <= LARGEST:  # also false for NaN
                    raise refused(
                        f"{name!r:.160} contains a value that is not finite or far too large.", "Train it again."
                    )


def _chunks(opened: Any, left: int, dtype: str) -> "Iterator[np.ndarray[Any, Any]]":
    while left:
        raw = opened.read(min(CHUNK, left))
        left -= len(raw)
        if dtype == "BF16":  # the upper half of a float32
            yield (np.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4")
        else:
            yield np.frombuffer(raw, "<f4" if dtype == "F32" else "<f2")


def _rebuilt(data: Mapping[str, Any], config: LoraConfig) -> dict[str, Any]:
    """The config with only valid values in ignored fields. Unknown ones are unset, as `read_config` has checked."""
    fields = {name: value for name, value in data.items() if name not in IGNORED_FIELDS}
    fields |= {name: data[name] for name, is_valid in VALIDATORS.items() if name in data and is_valid(data[name])}
    flags = {"use_rslora": config.use_rslora, "use_dora": config.use_dora}
    return fields | flags | {"inference_mode": True, "target_modules": sorted(config.target_modules)}


def _is_name(value: Any) -> bool:
    return value is None or (isinstance(value, str) and len(value) <= 80 and PLAIN_NAME.fullmatch(value) is not None)


def _is_number(value: Any) -> bool:
    if isinstance(value, int):
        return not isinstance(value, bool) and abs(value) <= MAX_INTEGER
    return isinstance(value, float) and math.isfinite(value)


# Fields that are ignored here but read where the download is loaded: kept only if valid.
VALIDATORS: dict[str, Callable[[Any], bool]] = {
    "fan_in_fan_out": lambda value: isinstance(value, bool),
    "init_lora_weights": lambda value: isinstance(value, bool) or value in SAFE_INITS,
    "layers_pattern": _is_name,
    "lora_dropout": lambda value: _is_number(value) and 0 <= value < 1,
    "megatron_core": lambda value: value in (None, "megatron.core"),
    "peft_version": _is_name,
    "qalora_group_size": lambda value: type(value) is int and 0 < value < 1 << 16,
    "task_type": lambda value: value in (None, "CAUSAL_LM", "SEQ_2_SEQ_LM"),
}


def _kept_spec(folder: Path) -> dict[str, Any]:
    """The spec it was trained with, upgraded to this version; empty if there is none."""
    try:
        return TrainSpec.from_dict(json.loads((folder / SPEC).read_bytes())).to_dict()
    except (OSError, ValueError, RecursionError, SpecError):
        return {}


def _write_manifest(folder: Path, facts: Mapping[str, Any]) -> None:
    """Written last, with the current size and hash of every file. An up-to-date manifest is not touched."""
    names = sorted(one.name for one in folder.iterdir() if one.name != MANIFEST)
    files = {name: {"bytes": (folder / name).stat().st_size, "sha256": sha256_of(folder / name)} for name in names}
    if facts.get("files") != files:
        (folder / MANIFEST).unlink(missing_ok=True)
        (folder / MANIFEST).write_text(json.dumps({**facts, "files": files}, indent=2), encoding="utf-8")


def _lora_values(data: Mapping[str, Any], config: LoraConfig, targeted: list[str]) -> dict[str, Any]:
    """The adapter's config in terms of a spec, with module names in place of whole paths."""
    values = {name: data[name] for name in LORA_FIELDS if data.get(name) not in (None, {}, [], False)}
    values["target_modules"] = sorted({name.rpartition(".")[2] for name in targeted})
    if config.layers_to_transform:
        values["layers_to_transform"] = list(config.layers_to_transform)
    return values


def _metrics(manifest: Mapping[str, Any] | None) -> dict[str, Any]:
    return {name: manifest[name] for name in METRIC_FIELDS if _is_number(manifest.get(name))} if manifest else {}


def _parameter_count(header: Mapping[str, Any]) -> int:
    return sum(math.prod(entry["shape"]) for entry in header.values())


def _write_json(file: Path, data: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(data, indent=2, sort_keys=True), encoding="utf-8")
