"""Files as the wire shows them."""

from typing import Any

from webapp.api.file_store import TRAINING, AnyFile
from webapp.api.models import ApiFile
from webapp.api.names import FILE, wire_id
from webapp.api.wire import timestamp, timestamp_or_none
from webapp.datasets.models import DatasetVersion, VersionStatus
from webapp.datasets.preview import state_sentence

MOST_PROBLEMS = 5  # told in `status_details`; the dataset's page has them all
STATUSES = {VersionStatus.READY: "processed", VersionStatus.REJECTED: "error"}


def file_object(file: AnyFile) -> dict[str, Any]:
    return _kept(file) if isinstance(file, ApiFile) else _version(file)


def _kept(file: ApiFile) -> dict[str, Any]:
    facts = {"bytes": file.size, "filename": file.filename, "purpose": file.purpose}
    times = {"created_at": timestamp(file.created_at), "expires_at": timestamp_or_none(file.expires_at)}
    return {"id": wire_id(FILE, file.pk), "object": "file", **facts, **times} | {
        "status": "processed",
        "status_details": None,
    }


def _version(version: DatasetVersion) -> dict[str, Any]:
    facts = {"bytes": version.size, "filename": version.original_name, "purpose": TRAINING}
    expiry = getattr(version, "expiry", None)
    times = {
        "created_at": timestamp(version.created_at),
        "expires_at": timestamp(expiry.expires_at) if expiry else None,
    }
    return {"id": wire_id(FILE, version.pk), "object": "file", **facts, **times} | {
        "status": STATUSES.get(VersionStatus(version.status), "uploaded"),
        "status_details": problems(version) if version.status == VersionStatus.REJECTED else None,
    }


def problems(version: DatasetVersion) -> str:
    """Why a file cannot be used: the first bad lines, each with its number in the file, and what to do."""
    told = [_problem(error) for error in version.report.get("errors", [])[:MOST_PROBLEMS]]
    failure = version.report.get("failure") or {}
    first = " ".join(filter(None, (state_sentence(version), failure.get("fix", ""))))
    return "\n".join([first, *told])


def _problem(error: dict[str, Any]) -> str:
    where = ": ".join(filter(None, (f"Line {error['line']}", error.get("field", ""))))
    return f"{where}: {error['problem']}. {error['fix']}"
