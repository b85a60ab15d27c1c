"""Every change of a dataset version's status, each a conditional UPDATE that says whether it won."""

from typing import Any
from uuid import UUID

from django.db.models import F

from webapp.datasets.models import DatasetVersion, VersionStatus


def begin(version_id: UUID) -> int | None:
    """uploaded → inspecting. The new inspection's number, None when another process got there first."""
    fresh = DatasetVersion.objects.filter(pk=version_id, status=VersionStatus.UPLOADED)
    if not fresh.update(status=VersionStatus.INSPECTING, inspection=F("inspection") + 1):
        return None
    return DatasetVersion.objects.values_list("inspection", flat=True).get(pk=version_id)


def beat(version_id: UUID, inspection: int) -> bool:
    """A sign of life; False when this inspection has lost its place."""
    return bool(_held(version_id, inspection).update(heartbeat=F("heartbeat") + 1))


def accept(version_id: UUID, inspection: int, report: dict[str, Any], **lineage: Any) -> bool:
    """inspecting → ready. `lineage`: the version's `parent` and `changes`, as far as they are known only now."""
    found = {"content_hash": report["content_hash"], "row_count": report["rows"], "report": report} | lineage
    return bool(_held(version_id, inspection).update(status=VersionStatus.READY, **found))


def fetched(version_id: UUID, inspection: int, **original: Any) -> bool:
    """Its original has come from the hub: name, size, hash and source of it."""
    return bool(_held(version_id, inspection).update(**original))


def reject(version_id: UUID, inspection: int, report: dict[str, Any]) -> bool:
    """inspecting → rejected."""
    return bool(_held(version_id, inspection).update(status=VersionStatus.REJECTED, report=report))


def interrupt(version_id: UUID, inspection: int, *, seen_beat: int) -> bool:
    """inspecting → uploaded, when the supervisor has given no sign of life since `seen_beat`."""
    silent = _held(version_id, inspection).filter(heartbeat=seen_beat)
    return bool(silent.update(status=VersionStatus.UPLOADED))


def give_back(version_id: UUID, inspection: int) -> bool:
    """inspecting → uploaded, by the inspection itself, whose child was killed."""
    return bool(_held(version_id, inspection).update(status=VersionStatus.UPLOADED))


def _held(version_id: UUID, inspection: int) -> Any:
    """The version, as long as this inspection is its newest and has not ended."""
    rows = DatasetVersion.objects.filter(pk=version_id, status=VersionStatus.INSPECTING)
    return rows.filter(inspection=inspection)
