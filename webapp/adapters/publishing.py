"""How a folder, most of all a finished job's, becomes an adapter: its place on disk, its row, the colour it keeps."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NotRequired, TypedDict, Unpack
from uuid import UUID, uuid5

from webapp.accounts.models import Team, User
from webapp.adapters.models import HUES, Adapter, BaseModel
from webapp.common.storage import adapter_folder, sha256_of, size_of, sync_path
from webapp.datasets.models import DatasetVersion

WEIGHTS = "adapter_model.safetensors"
NAME_LENGTH = 100  # of an adapter's name, where a checkpoint is called after it


class NewAdapter(TypedDict):
    """What is known of an adapter when a job publishes it, or it is imported."""

    team: Team
    name: str
    base_model: BaseModel
    dataset_version: DatasetVersion | None
    created_by: User | None
    spec: dict[str, Any]
    metrics: dict[str, Any]
    of: NotRequired[Adapter]
    step: NotRequired[int]
    hue: NotRequired[int]
    imported_from: NotRequired[str]


def is_there(folder: Path, adapter_id: UUID, facts: dict[str, Any]) -> bool:
    """Whether what a job reports can be published: from `folder`, or from the adapter's place.

    It lies there already when a try to publish it moved it and then lost the database. Nothing is moved back then: the
    transaction may have come through all the same, with nobody left to say so.
    """
    if folder.is_dir():
        return True
    weights = adapter_folder(adapter_id) / WEIGHTS
    return weights.is_file() and sha256_of(weights) == facts.get("weights_sha256")


def create_adapter(*, adapter_id: UUID, folder: Path, **values: Unpack[NewAdapter]) -> Adapter:
    """Move a verified folder to its place and make the row that shows it. Call it inside the job's transaction.

    A folder that an earlier, rolled back try left there is replaced, or used when it is this one: see `is_there`.
    """
    final = adapter_folder(adapter_id)
    final.parent.mkdir(parents=True, exist_ok=True)
    if folder.is_dir():
        shutil.rmtree(final, ignore_errors=True)
        folder.rename(final)
        sync_path(final.parent)
    values.setdefault("hue", pick_hue(values["team"]))
    return Adapter.objects.create(
        pk=adapter_id,
        size=size_of(final),
        weights_sha256=values["metrics"].get("weights_sha256") or sha256_of(final / WEIGHTS),
        **values,
    )


@dataclass(frozen=True)
class Snapshot:
    """Weights on the way, as a job reports them: where they lie, after which step, and what was measured then."""

    folder: Path
    step: int
    metrics: dict[str, Any]


def create_checkpoint(final: Adapter, found: Snapshot) -> Adapter | None:
    """Make a snapshot of `final`'s training an adapter beside it, inside the same transaction; None when it is gone.

    It is there for comparison, so it may be missing: the job has succeeded all the same.
    """
    pk = uuid5(final.pk, f"step {found.step}")
    if not is_there(found.folder, pk, found.metrics):
        return None
    return create_adapter(
        adapter_id=pk,
        folder=found.folder,
        of=final,
        step=found.step,
        team=final.team,
        name=checkpoint_name(final.name, found.step),
        base_model=final.base_model,
        dataset_version=final.dataset_version,
        created_by=final.created_by,
        spec=final.spec,
        metrics=found.metrics,
        hue=final.hue,
    )


def checkpoint_name(name: str, step: int) -> str:
    return f"{name[:NAME_LENGTH]}, step {step}"


def pick_hue(team: Team) -> int:
    """The colour that the team's newest adapters do not have, or had longest ago, so that neighbours differ."""
    recent = list(Adapter.objects.finals().filter(team=team).values_list("hue", flat=True)[: HUES - 1])
    fresh = [hue for hue in range(HUES) if hue not in recent]
    return fresh[0] if fresh else recent[-1]
