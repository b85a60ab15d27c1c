"""How a finished job's folder becomes an adapter: its place on disk, its row, and the colour it keeps."""

import shutil
from pathlib import Path
from typing import Any, TypedDict, Unpack
from uuid import UUID

from webapp.accounts.models import Team, User
from webapp.adapters.models import HUES, Adapter, BaseModel
from webapp.common.storage import adapter_folder, sha256_of, size_of, sync_path
from webapp.datasets.models import DatasetVersion

WEIGHTS = "adapter_model.safetensors"


class NewAdapter(TypedDict):
    """What is known of an adapter when a job publishes it."""

    team: Team
    name: str
    base_model: BaseModel
    dataset_version: DatasetVersion | None
    created_by: User | None
    spec: dict[str, Any]
    metrics: dict[str, Any]


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
