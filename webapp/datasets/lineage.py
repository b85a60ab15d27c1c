"""Where a version stands among others: what it was made from, what changed, and what was made from it."""

import logging
from typing import Any

import pyarrow as pa

from trainer.formats.comparing import compare
from webapp.datasets.models import REVISED, DatasetVersion

logger = logging.getLogger(__name__)


def made_from(version: DatasetVersion, report: dict[str, Any]) -> dict[str, Any]:
    """The columns `parent` and `changes` of a version that was inspected well; its rows lie in its folder already."""
    if version.origin in REVISED:
        return {"changes": report.get("changes", {})}
    before = version.dataset.versions.ready().filter(number__lt=version.number).first()
    if before is None:
        return {}
    try:
        changes = compare(before.rows_path, version.rows_path).counts
    except (OSError, KeyError, pa.ArrowException):  # an older file that is damaged is no fault of this one
        logger.exception("what changed from %s to %s cannot be told", before, version)
        changes = {}
    return {"parent": before, "changes": changes}
