"""Atomic folders: written to a temporary folder, listed in a manifest with hashes, synced, renamed and verified."""

import hashlib
import importlib.metadata
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from trainer.errors import TrainerError

FORMAT = 1
BEFORE = "-before-"  # between a temporary name and that of the folder that is being replaced
LIBRARIES = ("torch", "transformers", "peft", "bitsandbytes", "safetensors", "tokenizers")


def library_versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in LIBRARIES}


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def whole_folder(target: Path, *, name: str, facts: dict[str, Any]) -> Iterator[Path]:
    """Yield a folder to fill. If the block succeeds, it replaces `target`, with a manifest called `name`.

    The manifest is written last, with `facts` and the size and sha256 of every file. If the block fails, `target` stays
    as it was.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    new = target.parent / f".tmp-{uuid4().hex}"
    replaced = target.parent / f"{new.name}{BEFORE}{target.name}"
    new.mkdir()
    try:
        yield new
        files = {one.name: {"bytes": one.stat().st_size, "sha256": sha256_of(one)} for one in sorted(new.iterdir())}
        for one in files:
            _sync(new / one)
        manifest = {"format": FORMAT, **facts, "libraries": library_versions(), "files": files}
        (new / name).write_text(json.dumps(manifest, indent=2, allow_nan=False), encoding="utf-8")
        _sync(new / name)
        _sync(new)
        _replace(new, target, replaced)
        _sync(target.parent)
    finally:
        shutil.rmtree(new, ignore_errors=True)
        shutil.rmtree(replaced, ignore_errors=True)
    verify(target, name=name)


def verify(folder: Path, *, name: str) -> dict[str, Any]:
    """The folder's manifest. Raises TrainerError(input_changed) unless every file is as it lists."""
    try:
        listed = json.loads((folder / name).read_text(encoding="utf-8"))
        files = {str(one): str(entry["sha256"]) for one, entry in listed["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(folder, f"its {name} is missing or broken") from error
    if listed.get("format") != FORMAT:
        raise _damaged(folder, "it has another format version")
    for one, expected in files.items():
        path = folder / one
        if "/" in one or path.is_symlink() or not path.is_file() or sha256_of(path) != expected:
            raise _damaged(folder, f"{one} is missing or has changed")
    manifest: dict[str, Any] = listed
    return manifest


def _replace(new: Path, target: Path, replaced: Path) -> None:
    """Rename `target` to `replaced` and `new` to `target`. If that fails, `target` is restored."""
    if target.exists():
        target.rename(replaced)
    try:
        new.rename(target)
    except OSError:
        if replaced.exists():
            replaced.rename(target)
        raise


def put_back(parent: Path) -> None:
    """Undo a replacement in `parent` that was killed between its two renames."""
    for replaced in parent.glob(f".tmp-*{BEFORE}*"):
        target = parent / replaced.name.partition(BEFORE)[2]
        if not target.exists():
            replaced.rename(target)


def _damaged(folder: Path, what: str) -> TrainerError:
    return TrainerError("input_changed", f"{folder.name} is damaged: {what}.", "Use another one, or start afresh.")


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
