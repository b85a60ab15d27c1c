"""What changed between two versions: small ones are compared at once, large ones by a limited child of the worker."""

from typing import Any
from uuid import UUID

from django.core.cache import cache

from trainer.formats.comparing import CHANGES, change_report
from webapp.common.pulse import Pulse
from webapp.datasets.child import run_compare
from webapp.datasets.kept_answers import KeptAnswer
from webapp.datasets.models import DatasetVersion

MOST_AT_ONCE = 100_000  # rows of both versions: a tenth of a second in the process that answers
KEPT_SECONDS = 3600  # in the cache


def kept_changes(older_id: UUID, newer_id: UUID) -> KeptAnswer:
    return KeptAnswer(newer_id, f"changes-since-{older_id}.json", what="comparison", work="Comparing the two versions")


def changes_of(older: DatasetVersion, newer: DatasetVersion) -> dict[str, Any] | None:
    """See `change_report`, or {"failure": …}; None while it is not there."""
    key = f"diff:{older.pk}:{newer.pk}"
    known: dict[str, Any] | None = cache.get(key)
    if known is not None:
        return known
    if older.row_count + newer.row_count <= MOST_AT_ONCE:
        known = change_report(older.rows_path, newer.rows_path)
    else:
        known = kept_changes(older.pk, newer.pk).read()
    if known is not None and "failure" not in known:
        cache.set(key, known, timeout=KEPT_SECONDS)
    return known


def compare_versions(older_id: UUID, newer_id: UUID) -> None:
    """Compare, unless it was done meanwhile or one of the two is gone."""
    both = DatasetVersion.objects.ready().in_bulk([older_id, newer_id])
    older, newer = both.get(older_id), both.get(newer_id)
    kept = kept_changes(older_id, newer_id)
    if older is None or newer is None or kept.read() is not None:
        return
    pulse = Pulse(lambda: DatasetVersion.objects.filter(pk__in=[older_id, newer_id]).count() == 2)
    kept.make(lambda out: run_compare(older.rows_path, newer.rows_path, out, still_ours=pulse), written=CHANGES)
