"""What changed between two versions: small ones are compared at once, large ones by a limited child of the worker.

What the child wrote lies in the newer version's folder, so that it goes with it; it can be made again at any time.
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
from trainer.formats.comparing import CHANGES, told_of
from webapp.common.pulse import Pulse
from webapp.common.storage import dataset_folder, sync_path
from webapp.datasets.child import Ending, run_compare
from webapp.datasets.models import DatasetVersion

logger = logging.getLogger(__name__)

MOST_AT_ONCE = 100_000  # rows of both versions: a tenth of a second in the process that answers
KEPT_SECONDS = 3600  # in the cache
RING_SECONDS = 60  # between two bells for one comparison
FAILURE_SECONDS = 3600  # after which a comparison that failed is tried again


def changes_of(older: DatasetVersion, newer: DatasetVersion) -> dict[str, Any] | None:
    """See `told_of`, or {"failure": …}; None while it is not there."""
    key = f"diff:{older.pk}:{newer.pk}"
    known: dict[str, Any] | None = cache.get(key)
    if known is not None:
        return known
    if older.row_count + newer.row_count <= MOST_AT_ONCE:
        known = told_of(older.rows_path, newer.rows_path)
    else:
        known = _read(older.pk, newer.pk)
    if known is not None and "failure" not in known:
        cache.set(key, known, timeout=KEPT_SECONDS)
    return known


def is_due(older: DatasetVersion, newer: DatasetVersion) -> bool:
    """Whether to ring for the comparison: nobody did a moment ago."""
    return bool(cache.add(f"diff-rung:{older.pk}:{newer.pk}", 1, timeout=RING_SECONDS))


def compare_versions(older_id: UUID, newer_id: UUID) -> None:
    """Compare, unless it was done meanwhile or one of the two is gone."""
    both = DatasetVersion.objects.ready().in_bulk([older_id, newer_id])
    older, newer = both.get(older_id), both.get(newer_id)
    if older is None or newer is None or _read(older_id, newer_id) is not None:
        return
    out = Path(mkdtemp(prefix="compare-", dir=newer.folder))
    try:
        pulse = Pulse(lambda: DatasetVersion.objects.filter(pk__in=[older_id, newer_id]).count() == 2)
        ending = run_compare(older.rows_path, newer.rows_path, out, still_ours=pulse)
        if ending is not None:
            _conclude(older, newer, ending, out)
    finally:
        shutil.rmtree(out, ignore_errors=True)


def keep_failure(older_id: UUID, newer_id: UUID, text: str) -> None:
    path = _path(older_id, newer_id)
    if path.parent.is_dir():
        path.write_text(json.dumps({"failure": text}), encoding="utf-8")


def broken(mark: str) -> str:
    """The failure when our own code failed."""
    return f"The comparison failed on our side (error {mark}); the server's log has the cause."


def _conclude(older: DatasetVersion, newer: DatasetVersion, ending: Ending, out: Path) -> None:
    if ending.status == EXIT_CODES["finished"]:
        (out / CHANGES).replace(_path(older.pk, newer.pk))
        sync_path(newer.folder)
        return
    logger.error("comparison of %s and %s ended with %s: %s", older.pk, newer.pk, ending.status, ending.stderr)
    keep_failure(older.pk, newer.pk, _unexpected(ending))


def _unexpected(ending: Ending) -> str:
    if ending.out_of_time:
        return "Comparing the two versions took too long."
    if ending.failed and ending.failed.code != "internal":
        return f"{ending.failed.text} {ending.failed.fix}".strip()
    return f"The comparison ended unexpectedly (status {ending.status})."


def _read(older_id: UUID, newer_id: UUID) -> dict[str, Any] | None:
    path = _path(older_id, newer_id)
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        stale = "failure" in found and time.time() - path.stat().st_mtime > FAILURE_SECONDS
    except (FileNotFoundError, ValueError):
        return None
    return None if stale else found


def _path(older_id: UUID, newer_id: UUID) -> Path:
    return dataset_folder(newer_id) / f"changes-since-{older_id}.json"
