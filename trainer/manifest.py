"""Folders that are there whole or not at all: written aside, synced, listed with hashes, renamed, verified."""

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
LIBRARIES = ("torch", "transformers", "peft", "bitsandbytes", "safetensors", "tokenizers")


def library_versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in LIBRARIES}


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def whole_folder(target: Path, *, name: str, facts: dict[str, Any]) -> Iterator[Path]:
    """Yield a folder to fill; when the block ends well it becomes `target`, with a manifest called `name`.

    The manifest is written last and holds `facts` and every file's size and sha256. When the block fails, nothing is
    left, and what was at `target` before still is.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.parent / f".tmp-{uuid4().hex}"
    before = target.parent / f"{aside.name}-before"
    aside.mkdir()
    try:
        yield aside
        files = {one.name: {"bytes": one.stat().st_size, "sha256": sha256_of(one)} for one in sorted(aside.iterdir())}
        for one in files:
            _sync(aside / one)
        listed = {"format": FORMAT, **facts, "libraries": library_versions(), "files": files}
        (aside / name).write_text(json.dumps(listed, indent=2, allow_nan=False), encoding="utf-8")
        _sync(aside / name)
        _sync(aside)
        _exchange(aside, target, before)
        _sync(target.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        shutil.rmtree(before, ignore_errors=True)
    verify(target, name=name)


def verify(folder: Path, *, name: str) -> dict[str, Any]:
    """The manifest of a folder whose every file is as listed. Raises TrainerError(input_changed) otherwise."""
    try:
        listed = json.loads((folder / name).read_text(encoding="utf-8"))
        files = {str(one): str(entry["sha256"]) for one, entry in listed["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(folder, f"its {name} is missing or broken") from error
    if listed.get("format") != FORMAT:
        raise _damaged(folder, "it is of another version")
    for one, expected in files.items():
        path = folder / one
        if "/" in one or path.is_symlink() or not path.is_file() or sha256_of(path) != expected:
            raise _damaged(folder, f"{one} is missing or not what was written")
    manifest: dict[str, Any] = listed
    return manifest


def _exchange(new: Path, target: Path, before: Path) -> None:
    """Put `new` in the place of `target`, which is called `before` from then on; where that fails it stays."""
    if target.exists():
        target.rename(before)
    try:
        new.rename(target)
    except OSError:
        if before.exists():
            before.rename(target)
        raise


def _damaged(folder: Path, what: str) -> TrainerError:
    return TrainerError("input_changed", f"{folder.name} is damaged: {what}.", "Use another one, or start afresh.")


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
