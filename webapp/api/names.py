"""Ids and model names as they are on the wire, and what they stand for here."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from webapp.accounts.models import Team, User
from webapp.adapters.models import Adapter, BaseModel, BaseSource
from webapp.api.wire import ApiError

FILE, JOB, CHECKPOINT, BATCH, UPLOAD, PART = "file-", "ftjob-", "ftckpt-", "batch_", "upload_", "part_"
EVENT, PERMISSION, COMPLETION = "ftevent-", "cp_", "chatcmpl-"

TAIL = 12  # hex digits of an adapter's id that end its model name
FOR_NAMES = ("base_model", "team", "of__base_model", "of__team")  # of adapters whose names are to be told
HEX = re.compile(r"[0-9a-f]{32}")
ADAPTER_NAME = re.compile(r"ft:.*?:([0-9a-f]{12})(?::ckpt-step-([0-9]{1,9}))?", re.DOTALL)


def wire_id(prefix: str, pk: UUID) -> str:
    """Such as `file-0123…`."""
    return f"{prefix}{pk.hex}"


def uuid_of(wire: str, prefix: str) -> UUID | None:
    """The id behind `wire`; None when it is none of this kind."""
    digits = wire.removeprefix(prefix)
    return UUID(digits) if wire.startswith(prefix) and HEX.fullmatch(digits) else None


def slug_of(text: str) -> str:
    """A part of a model name: small letters, digits, dots, dashes and underscores."""
    return re.sub(r"[^a-z0-9._]+", "-", text.lower()).strip("-")


def adapter_name(adapter: Adapter) -> str:
    """`ft:<base>:<team>:<suffix>:<id>`, of a checkpoint with `:ckpt-step-<n>` after it.

    Only the id and the step find it again: the others may be renamed.
    """
    if adapter.of is not None:
        return f"{adapter_name(adapter.of)}:ckpt-step-{adapter.step}"
    parts = (slug_of(adapter.base_model.name), adapter.team.slug, slug_of(adapter.name), adapter.pk.hex[:TAIL])
    return ":".join(("ft", *parts))


def base_names(bases: Iterable[BaseModel]) -> dict[UUID, str]:
    """The wire's name of each: its slug, or its exact name when that slug is an older one's, or another one's name."""
    bases = list(bases)
    taken = {base.name for base in bases}
    names: dict[UUID, str] = {}
    for base in bases:
        slug = slug_of(base.name)
        names[base.pk] = base.name if slug in taken else slug
        taken.add(slug)
    return names


@dataclass(frozen=True)
class Found:
    """What answers under a model name: a base model, with or without an adapter."""

    base: BaseModel
    adapter: Adapter | None = None


def find_model(user: User, team: Team, name: str) -> Found:
    """What `name` means for this key, or 404 `model_not_found`: for what it may not see as well.

    `team` is the one of the request; an adapter may be of any team of the user, or shared with one.
    """
    found = _adapter(user, name) if name.startswith("ft:") else _base(name)
    if found is None:
        raise model_not_found(name)
    return found


def _adapter(user: User, name: str) -> Found | None:
    match = ADAPTER_NAME.fullmatch(name)
    if match is None:
        return None
    ends = tuple(UUID(match[1] + digit * (32 - TAIL)) for digit in "0f")
    rows = Adapter.objects.visible_to(user)
    rows = rows.filter(pk__range=ends) if match[2] is None else rows.filter(of__pk__range=ends, step=int(match[2]))
    adapter = rows.select_related(*FOR_NAMES).first()
    return Found(adapter.base_model, adapter) if adapter else None


def ready_bases() -> list[BaseModel]:
    return list(BaseModel.objects.ready().order_by("created_at", "pk"))


def _base(name: str) -> Found | None:
    """By its exact name, else its name on the wire, else its hub id."""
    bases = ready_bases()
    slugs = base_names(bases)
    by_name = [base for base in bases if base.name == name]
    by_slug = [base for base in bases if slugs[base.pk] == name]
    by_hub_id = [base for base in bases if base.source == BaseSource.HUB and base.location == name]
    found = next(iter(by_name + by_slug + by_hub_id), None)
    return Found(found) if found else None


def model_not_found(name: str) -> ApiError:
    text = f"The model `{name[:200]}` does not exist, or your key may not see it."
    return ApiError(404, text, param="model", code="model_not_found")
