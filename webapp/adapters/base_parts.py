"""What a base model consists of: found by a child that loads torch, once, and kept in a file of the base model."""

import json
from contextlib import suppress
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from uuid import uuid4

from trainer.base_parts import BaseParts
from webapp.adapters.importing_child import told_by
from webapp.adapters.models import BaseModel
from webapp.common.errors import UserError
from webapp.common.storage import base_folder, sync_path, work_folder
from webapp.datasets.child import run_layers
from webapp.version import version


def known_parts(base: BaseModel) -> BaseParts | None:
    """None as long as nobody has found them, and when the base model's own files are gone."""
    with suppress(UserError, FileNotFoundError):
        return _read(parts_file(base))
    return None


def keep_parts(base: BaseModel) -> Path:
    """The file of the base's parts, made unless it is there: only loading torch takes long."""
    kept = parts_file(base)
    if not kept.is_file():
        kept.parent.mkdir(parents=True, exist_ok=True)
        with work_folder(kept.parent / f".tmp-{uuid4().hex}") as work:
            (work / "layers").mkdir()
            told = told_by("layers", run_layers(base.folder, work / "layers"), work, what="base model")
            made = work / "layers" / "kept.json"
            made.write_text(json.dumps(told), encoding="utf-8")
            sync_path(made)
            made.replace(kept)
    return kept


def parts_file(base: BaseModel) -> Path:
    """Where they are kept: what they are follows from the base's config, and from who reads it."""
    if not base.is_ready:
        raise UserError("base_not_ready", name=base.name)
    try:
        config = sha256((base.folder / "config.json").read_bytes()).hexdigest()
    except OSError as error:
        raise UserError("base_missing", folder=base.name) from error
    return base_folder(base.pk) / f"base-parts-{version()}-{config[:16]}.json"


@lru_cache(maxsize=8)
def _read(file: Path) -> BaseParts:
    """Of a base model with many experts it is a long one; under the same name it never changes."""
    return BaseParts.read(file)
