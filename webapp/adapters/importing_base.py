"""Which base model of ours an imported adapter means."""

import re

from trainer.base_source import source_of
from webapp.adapters.models import BaseModel
from webapp.common.errors import UserError

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
