"""How many tokens the rows of a version have for a base model: counted once by a limited child, kept beside the rows.

The count lies in a file of the version's folder, so that it goes with the version; it can be made again at any time.
"""

import json
import logging
import shutil
import time
from pathlib import Path
from tempfile import mkdtemp
from typing import Any
from uuid import UUID

from django.core.cache import cache

from trainer.errors import EXIT_CODES
from webapp.adapters.models import BaseModel
from webapp.common.pulse import Pulse
from webapp.common.storage import dataset_folder, sync_path
from webapp.datasets.child import Ending, run_tokens
from webapp.datasets.models import DatasetVersion

logger = logging.getLogger(__name__)

RING_SECONDS = 60  # between two bells for one count
FAILURE_SECONDS = 3600  # after which a count that failed is tried again


def counts_of(version: DatasetVersion, base: BaseModel) -> dict[str, Any] | None:
    """What `python -m trainer tokens` wrote, or {"failure": …}; None while it is not there."""
    path = _path(version.pk, base.pk)
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        stale = "failure" in found and time.time() - path.stat().st_mtime > FAILURE_SECONDS
    except (FileNotFoundError, ValueError):
        return None
    return None if stale else found


def is_due(version: DatasetVersion, base: BaseModel) -> bool:
    """Whether to ring for the count: nobody did a moment ago."""
    return bool(cache.add(f"tokens-rung:{version.pk}:{base.pk}", 1, timeout=RING_SECONDS))


def count(version_id: UUID, base_id: UUID) -> None:
    """Count, unless it was done meanwhile or there is nothing to count."""
    version = DatasetVersion.objects.ready().filter(pk=version_id).first()
    base = BaseModel.objects.ready().filter(pk=base_id).first()
    if version is None or base is None or counts_of(version, base) is not None:
        return
    out = Path(mkdtemp(prefix="tokens-", dir=version.folder))
    try:
        pulse = Pulse(lambda: DatasetVersion.objects.filter(pk=version_id).exists())
        ending = run_tokens(version.rows_path, base.folder, out, still_ours=pulse)
        if ending is not None:
            _conclude(version, base, ending, out)
    finally:
        shutil.rmtree(out, ignore_errors=True)


def keep_failure(version_id: UUID, base_id: UUID, text: str) -> None:
    path = _path(version_id, base_id)
    if path.parent.is_dir():
        path.write_text(json.dumps({"failure": text}), encoding="utf-8")


def broken(mark: str) -> str:
    """The failure when our own code failed."""
    return f"The count failed on our side (error {mark}); the server's log has the cause."


def _conclude(version: DatasetVersion, base: BaseModel, ending: Ending, out: Path) -> None:
    if ending.status == EXIT_CODES["finished"]:
        (out / "tokens.json").replace(_path(version.pk, base.pk))
        sync_path(version.folder)
        return
    logger.error("token count of %s on %s ended with %s: %s", version.pk, base.pk, ending.status, ending.stderr)
    keep_failure(version.pk, base.pk, _unexpected(ending))


def _unexpected(ending: Ending) -> str:
    if ending.out_of_time:
        return "Counting the tokens took too long."
    if ending.failed and ending.failed.code != "internal":
        return f"{ending.failed.text} {ending.failed.fix}".strip()
    return f"The count ended unexpectedly (status {ending.status})."


def _path(version_id: UUID, base_id: UUID) -> Path:
    return dataset_folder(version_id) / f"tokens-{base_id}.json"
