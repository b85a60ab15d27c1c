"""The public name and revision of a base model, stored beside its files: what adapters call it on other machines."""

import json
from pathlib import Path

NAME = "lowrank.json"


def note_source(folder: Path, *, name: str, revision: str) -> None:
    """Write down the hub id (or another public name) and revision of the model in `folder`."""
    (folder / NAME).unlink(missing_ok=True)  # never write through a link into the hub's cache
    (folder / NAME).write_text(json.dumps({"name": name, "revision": revision}), encoding="utf-8")


def source_of(folder: Path) -> tuple[str, str]:
    """Name and revision as noted; the folder's own name for one that nobody fetched here."""
    try:
        noted = json.loads((folder / NAME).read_text(encoding="utf-8"))
        return str(noted["name"]), str(noted["revision"])
    except (OSError, ValueError, KeyError, TypeError):
        return folder.resolve().name, ""
