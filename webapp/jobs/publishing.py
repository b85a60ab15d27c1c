"""From the folder an attempt finished to an adapter in the library."""

from pathlib import Path
from typing import Any

from webapp.adapters.models import HUES, Adapter
from webapp.common.errors import UserError
from webapp.common.storage import sha256_of, size_of
from webapp.jobs.models import Job

WEIGHTS = "adapter_model.safetensors"


def publish(job: Job, folder: Path, facts: dict[str, Any], adapter_id: Any) -> Adapter:
    """Move the folder into the library and write its row."""
    if not (folder / WEIGHTS).is_file():
        raise UserError("adapter_damaged")
    adapter = Adapter(
        pk=adapter_id,
        team=job.team,
        name=job.name,
        base_model=job.base_model,
        dataset_version=job.dataset_version,
        hue=adapter_id.int % HUES,
        size=size_of(folder),
        weights_sha256=sha256_of(folder / WEIGHTS),
        spec=job.spec,
        metrics=facts,
        created_by=job.created_by,
    )
    adapter.folder.parent.mkdir(parents=True, exist_ok=True)
    folder.rename(adapter.folder)
    adapter.save(force_insert=True)
    return adapter
