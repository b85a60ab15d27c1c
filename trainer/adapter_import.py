"""Makes an adapter of strangers one of ours: held to its base model, its config written anew, its weights looked at."""

import json
import math
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from trainer.adapter_archive import METRICS, PICKLE_STARTS, SPEC, unpack
from trainer.adapter_format import (
    CONFIG,
    LARGEST,
    MANIFEST,
    PASSED_OVER,
    PLAIN_NAME,
    PREFIX,
    READ,
    TOKENIZER_FILES,
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

BYTES = {"F32": 4, "F16": 2, "BF16": 2}
CHUNK = 1 << 22
FIX_WEIGHTS = "Save the adapter again with PEFT, and send that."
STARTS = (None, "gaussian", "orthogonal")
A_END = ".lora_A.weight"
MOST_COUNTED = 1 << 53  # larger integers are no measurements, and the largest do not even fit a float
# What a manifest of ours tells of a training, where it is a number.
MEASURED = (
    "steps", "planned_steps", "published_step", "loss", "trained_tokens", "seconds", "peak_memory_bytes",
    "evaluation_loss", "perplexity", "accuracy", "margin", "evaluation_loss_before", "evaluation_rows",
    "general_kl", "general_perplexity", "general_perplexity_before",
)  # fmt: skip
LORA_FIELDS = (
    "r", "lora_alpha", "lora_dropout", "bias", "use_rslora", "use_dora", "rank_pattern", "alpha_pattern",
    "modules_to_save", "trainable_token_indices",
)  # fmt: skip


def unpack_sent(sent: Path, out: Path, *, limit: int) -> dict[str, Any]:
    """The adapter's files of the folder `sent` into `out`/adapter. Returns the name that it has for its base.

    `sent` holds files called 0, 1, …, and names.json with what they were called. Raises TrainerError.
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
    """Check the adapter of a folder against a base model and make it as one that was trained here. Returns its facts.

    Its config is written anew from known fields, tokenizer and chat template are the base's own, and what tells of a
    training is kept only where a manifest of ours vouches for it. Raises TrainerError (`user_config`).
    """
    ours = _vouched(folder)
    data = _with_named_targets(folder, parts.layers)
    config = read_config(folder / CONFIG)
    _check_start(data.get("init_lora_weights", True))
    header = _read_weights_header(folder / WEIGHTS)
    targeted = check_entries(_entries(header), parts.layers, config, own_shapes(config, parts))
    _check_values(folder / WEIGHTS, header)
    name, revision = source_of(base)
    _write(folder / CONFIG, _rebuilt(data, config) | {"base_model_name_or_path": name, "revision": revision or None})
    _put_tokenizer(folder, base)
    spec = _kept_spec(folder) if ours else {}
    if not spec:
        for file in (SPEC, METRICS):
            (folder / file).unlink(missing_ok=True)
    told = {"imported": True, "base": name, "base_revision": revision, "task": read_task(base)}
    _put_manifest(folder, (ours if spec else None) or {"format": FORMAT, **told})
    return {
        "spec": spec or {"model": {"base": name, "revision": revision}, "lora": _lora(data, config, targeted)},
        "metrics": _measured(ours if spec else None)
        | {"weights_sha256": sha256_of(folder / WEIGHTS), "parameters": _count(header)},
    }


def _vouched(folder: Path) -> dict[str, Any] | None:
    """The manifest, when all files are as Lowrank once wrote them."""
    try:
        return verify(folder, name=MANIFEST)
    except TrainerError:
        return None


def _with_named_targets(folder: Path, layers: Mapping[str, LayerSize]) -> dict[str, Any]:
    """The config; a pattern of target_modules is never matched: the layers that have weights stand in for it."""
    data = read_object(folder / CONFIG)
    if isinstance(data.get("target_modules"), str):
        header = _read_weights_header(folder / WEIGHTS)
        names = {key.removeprefix(PREFIX).removesuffix(A_END) for key in header if key.endswith(A_END)}
        if named := sorted(names & layers.keys()):
            data["target_modules"] = named
            _write(folder / CONFIG, data)
    return data


def _check_start(start: Any) -> None:
    """Starts such as PiSSA's take a part out of the base's weights, and the file holds an update of what is left."""
    if not isinstance(start, bool) and start not in STARTS:
        text = f"{CONFIG} sets init_lora_weights to {start!r:.40}: its weights are not for the base as it is."
        raise refused(text, "Save it with save_pretrained(folder, path_initial_model_for_weight_conversion=…).")


def _read_weights_header(file: Path) -> dict[str, Any]:
    with file.open("rb") as opened:
        start = opened.read(10)
        if start[:4] == ZIP or (start.startswith(PICKLE_STARTS) and start[8:] != b'{"'):
            raise refused(f"{WEIGHTS} is a pickle under another name: it is not opened here.", FIX_WEIGHTS)
    try:
        header = read_header(file)
    except TrainerError as error:
        raise refused(error.text, FIX_WEIGHTS) from error
    header.pop("__metadata__", None)
    return header


def _entries(header: Mapping[str, Any]) -> dict[str, Entry]:
    """The header's tensors, whose bytes lie one behind another without a gap, each as long as its shape needs."""
    entries, end = {}, 0
    damaged = refused(f"{WEIGHTS} is damaged: its header does not fit its bytes.", FIX_WEIGHTS)
    try:
        for name, told in sorted(header.items(), key=lambda one: one[1]["data_offsets"]):
            dtype, shape, (start, stop) = told["dtype"], told["shape"], told["data_offsets"]
            if not all(type(one) is int and one >= 0 for one in (*shape, start, stop)) or start != end:
                raise damaged
            if dtype in BYTES and stop - start != math.prod(shape) * BYTES[dtype]:
                raise damaged
            entries[name], end = Entry(str(dtype), list(shape)), stop
    except (KeyError, TypeError, ValueError) as error:
        raise damaged from error
    return entries


def _check_values(file: Path, header: Mapping[str, Any]) -> None:
    """Every number finite and of a size that training leaves; a piece at a time."""
    with file.open("rb") as opened:
        start = 8 + int.from_bytes(opened.read(8), "little")
        for name, told in header.items():
            opened.seek(start + told["data_offsets"][0])
            for values in _pieces(opened, told["data_offsets"][1] - told["data_offsets"][0], told["dtype"]):
                if not float(np.abs(values).max()) <= LARGEST:  # also false for NaN
                    raise refused(
                        f"{name!r:.160} holds a value that is not finite or far too large.", "Train it again."
                    )


def _pieces(opened: Any, left: int, dtype: str) -> "Iterator[np.ndarray[Any, Any]]":
    while left:
        raw = opened.read(min(CHUNK, left))
        left -= len(raw)
        if dtype == "BF16":  # the upper half of a float32
            yield (np.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4")
        else:
            yield np.frombuffer(raw, "<f4" if dtype == "F32" else "<f2")


def _rebuilt(data: Mapping[str, Any], config: LoraConfig) -> dict[str, Any]:
    """The config of known fields with checked values; what is off stays off under its name."""
    found = {name: value for name, value in data.items() if name in READ or name not in PASSED_OVER}
    found |= {name: data[name] for name, is_sound in SOUND.items() if name in data and is_sound(data[name])}
    told = {"use_rslora": config.use_rslora, "use_dora": config.use_dora}
    return found | told | {"inference_mode": True, "target_modules": sorted(config.target_modules)}


def _is_word(value: Any) -> bool:
    return value is None or (isinstance(value, str) and len(value) <= 80 and PLAIN_NAME.fullmatch(value) is not None)


def _is_number(value: Any) -> bool:
    if isinstance(value, int):
        return not isinstance(value, bool) and abs(value) <= MOST_COUNTED
    return isinstance(value, float) and math.isfinite(value)


# Fields that change nothing here, and would be believed where the download is loaded: kept when they are harmless.
SOUND: dict[str, Callable[[Any], bool]] = {
    "fan_in_fan_out": lambda value: isinstance(value, bool),
    "init_lora_weights": lambda value: isinstance(value, bool) or value in STARTS,
    "layers_pattern": _is_word,
    "lora_dropout": lambda value: _is_number(value) and 0 <= value < 1,
    "megatron_core": lambda value: value in (None, "megatron.core"),
    "peft_version": _is_word,
    "qalora_group_size": lambda value: type(value) is int and 0 < value < 1 << 16,
    "task_type": lambda value: value in (None, "CAUSAL_LM", "SEQ_2_SEQ_LM"),
}


def _put_tokenizer(folder: Path, base: Path) -> None:
    for name in TOKENIZER_FILES:
        (folder / name).unlink(missing_ok=True)
        if (base / name).is_file():
            shutil.copyfile(base / name, folder / name)


def _kept_spec(folder: Path) -> dict[str, Any]:
    """The spec of its training, in this version's terms; empty when there is none."""
    try:
        return TrainSpec.from_dict(json.loads((folder / SPEC).read_bytes())).to_dict()
    except (OSError, ValueError, RecursionError, SpecError):
        return {}


def _put_manifest(folder: Path, told: Mapping[str, Any]) -> None:
    """Last, with every file as it is now; one that says so already stays byte for byte."""
    names = sorted(one.name for one in folder.iterdir() if one.name != MANIFEST)
    files = {name: {"bytes": (folder / name).stat().st_size, "sha256": sha256_of(folder / name)} for name in names}
    if told.get("files") != files:
        (folder / MANIFEST).unlink(missing_ok=True)
        (folder / MANIFEST).write_text(json.dumps({**told, "files": files}, indent=2), encoding="utf-8")


def _lora(data: Mapping[str, Any], config: LoraConfig, targeted: list[str]) -> dict[str, Any]:
    """What a spec would have said of it; whole paths as the names at their ends."""
    told = {name: data[name] for name in LORA_FIELDS if data.get(name) not in (None, {}, [], False)}
    told["target_modules"] = sorted({name.rpartition(".")[2] for name in targeted})
    if config.layers_to_transform:
        told["layers_to_transform"] = list(config.layers_to_transform)
    return told


def _measured(manifest: Mapping[str, Any] | None) -> dict[str, Any]:
    return {name: manifest[name] for name in MEASURED if _is_number(manifest.get(name))} if manifest else {}


def _count(header: Mapping[str, Any]) -> int:
    return sum(math.prod(told["shape"]) for told in header.values())


def _write(file: Path, data: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(data, indent=2, sort_keys=True), encoding="utf-8")
