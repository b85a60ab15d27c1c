"""Which base model of ours an imported adapter means, and what layers that base has for it."""

import json
import re
from hashlib import sha256
from pathlib import Path

from trainer.base_source import source_of
from webapp.adapters.importing_child import told_by
from webapp.adapters.models import BaseModel
from webapp.common.errors import UserError
from webapp.common.storage import base_folder, sync_path
from webapp.datasets.child import run_layers
from webapp.version import version

CACHED = re.compile(r"models--([^/]+)--([^/]+)")  # a folder of the hub's cache


def base_for(named: str) -> BaseModel:
    """The base model that an adapter names: by name, hub id or address, else by the last part of that.

    Raises UserError when it is none of ours, or could be several.
    """
    if cached := CACHED.search(named):
        named = "/".join(cached.groups())
    ready = list(BaseModel.objects.ready())
    exact = [base for base in ready if named in _names_of(base)]
    alike = [base for base in ready if _last(named) in {_last(name) for name in _names_of(base)}]
    found = exact or alike
    if not named or len(found) != 1:
        raise UserError("import_base_unknown", named=_told(named, found))
    return found[0]


def _names_of(base: BaseModel) -> set[str]:
    return {name for name in (base.name, base.location, base.path, source_of(base.folder)[0]) if name}


def _last(name: str) -> str:
    """How people write it differs; a path of another machine ends like the name."""
    return re.sub(r"[^a-z0-9]+", "-", name.replace("\\", "/").rstrip("/").rpartition("/")[2].lower()).strip("-")


def _told(named: str, found: list[BaseModel]) -> str:
    if not named:
        return "a base model that it does not name"
    if found:
        return f"{named}, which could be {' or '.join(base.name for base in found)}"
    return f"{named}, which is no base model of this server"


def layers_of(base: BaseModel, work: Path) -> Path:
    """The file that tells the base's layers, made when it is needed first: only loading torch takes long."""
    kept = layers_file(base)
    if not kept.is_file():
        told = told_by("layers", run_layers(base.folder, work / "layers"), work)
        kept.parent.mkdir(parents=True, exist_ok=True)
        made = work / "layers" / "kept.json"
        made.write_text(json.dumps(told), encoding="utf-8")
        sync_path(made)
        made.replace(kept)
    return kept


def layers_file(base: BaseModel) -> Path:
    """Where they are kept: what they are follows from the base's config, and from who reads it."""
    if not base.is_ready:
        raise UserError("base_not_ready", name=base.name)
    try:
        config = sha256((base.folder / "config.json").read_bytes()).hexdigest()
    except OSError as error:
        raise UserError("base_missing", folder=base.name) from error
    return base_folder(base.pk) / f"base-parts-{version()}-{config[:16]}.json"
