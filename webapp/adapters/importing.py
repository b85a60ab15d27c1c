"""Adapters that were made elsewhere: their files taken in, held to a base model, and put into a team's library."""

import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from uuid import UUID, uuid4

from django.conf import settings
from django.db import transaction
from django.http import HttpRequest

from webapp.accounts.audit import record
from webapp.accounts.models import Team, User
from webapp.adapters.base_parts import keep_parts
from webapp.adapters.importing_base import base_for
from webapp.adapters.importing_child import told_by
from webapp.adapters.models import Adapter, BaseModel
from webapp.adapters.publishing import create_adapter
from webapp.common.errors import UserError
from webapp.common.storage import adapter_folder, link, sync_tree
from webapp.datasets import uploads
from webapp.datasets.child import run_adapter_step
from webapp.datasets.models import Upload
from webapp.datasets.storing import Original, check_size, chunks_of, plain_name

CONFIG = "adapter_config.json"
PACKINGS = (".zip", ".tar", ".tgz", ".gz", ".zst")
UNNAMED = "Imported adapter"


@dataclass(frozen=True)
class Imported:
    """`is_new`: the library did not have it yet."""

    adapter: Adapter
    is_new: bool


@dataclass(frozen=True)
class Wish:
    """Whose library it goes to. Without a base model the one that the adapter names; without a name its file's."""

    user: User
    team: Team
    base: BaseModel | None = None
    name: str = ""


def import_adapter(wish: Wish, files: list[Original], *, request: HttpRequest | None = None) -> Imported:
    """An archive of an adapter's folder, or its files, as an adapter like those that were trained here.

    Raises UserError for what is none, or none of that base model. Until all is sound nothing is visible; what the
    team's library has already is not taken twice.
    """
    uploads.refuse_unfinished(files)
    with _work_folder() as work:
        size = _collect(files, work)
        named = told_by("unpack", run_adapter_step(_unpacking(work), work / "unpack", size=size), work)["base"]
        base = wish.base or base_for(named)
        folder = work / "unpack" / "adapter"
        check = ["check", str(folder), f"--base={base.folder}", f"--layers={keep_parts(base)}"]
        told = told_by("check", run_adapter_step(check, work / "check", size=size), work)
        sync_tree(folder)
        with _removed_on_failure(pk := uuid4()), transaction.atomic():
            made = _publish(wish, pk, folder, base=base, called=plain_name(files[0].name), told=told)
            uploads.forget(files)
            if made.is_new:
                target = f"{made.adapter.name} from {made.adapter.imported_from}"
                record(actor=wish.user, action="adapter.import", team=wish.team, target=target, request=request)
    return made


@contextmanager
def _work_folder() -> Iterator[Path]:
    """Beside the adapters, under a name that is swept up when a process dies in the middle."""
    work = adapter_folder(uuid4()).parent / f".tmp-{uuid4().hex}"
    for step in ("sent", "unpack", "check"):
        (work / step).mkdir(parents=True)
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _collect(files: list[Original], work: Path) -> int:
    """The files under numbers, with what they were called beside them; their bytes together."""
    sent, size = work / "sent", 0
    if shutil.disk_usage(sent).free < sum(file.size or 0 for file in files) + uploads.ROOM_KEPT:
        raise UserError("upload_no_room")
    for number, file in enumerate(files):
        if isinstance(file, Upload):
            link(file.path, sent / str(number))
        else:
            with (sent / str(number)).open("wb") as out:
                out.writelines(chunks_of(file))
        size += (sent / str(number)).stat().st_size
        check_size(size)
    names = [plain_name(file.name) for file in files]
    (sent / "names.json").write_text(json.dumps(names), encoding="utf-8")
    return size


def _unpacking(work: Path) -> list[str]:
    return ["unpack", str(work / "sent"), f"--limit={settings.MAX_UPLOAD_BYTES}"]


def _publish(wish: Wish, pk: UUID, folder: Path, *, base: BaseModel, called: str, told: dict[str, Any]) -> Imported:
    """Inside a transaction: the adapter, or the one of the library with the same weights and config."""
    Team.objects.select_for_update().get(pk=wish.team.pk)  # of two that import the same, one finds the other's
    same = Adapter.objects.filter(
        team=wish.team, base_model=base, weights_sha256=told["metrics"]["weights_sha256"]
    ).select_related("team", "base_model")
    for there in same:
        if _config(there.folder) == _config(folder):
            return Imported(there, is_new=False)
    made = create_adapter(
        adapter_id=pk,
        folder=folder,
        team=wish.team,
        name=wish.name or _name_of(called),
        base_model=base,
        dataset_version=None,
        created_by=wish.user,
        spec=told["spec"],
        metrics=told["metrics"],
        imported_from=called,
    )
    return Imported(made, is_new=True)


def _config(folder: Path) -> Any:
    try:
        return json.loads((folder / CONFIG).read_bytes())
    except (OSError, ValueError):
        return None


def _name_of(called: str) -> str:
    """After the archive; the files of an adapter are called the same everywhere."""
    stem = PurePosixPath(called)
    if stem.suffix not in PACKINGS:
        return UNNAMED
    while stem.suffix in PACKINGS:
        stem = stem.with_suffix("")
    return stem.name.replace("_", " ").strip()[:120] or UNNAMED


@contextmanager
def _removed_on_failure(pk: UUID) -> Iterator[None]:
    with ExitStack() as undo:
        undo.callback(shutil.rmtree, adapter_folder(pk), ignore_errors=True)
        yield
        undo.pop_all()
