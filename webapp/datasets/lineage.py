"""Where a version stands among others: what it was made from, what changed, and what was made from it."""

import json
import logging
from typing import Any

import pyarrow as pa
from django.db.models import QuerySet

from trainer.formats.comparing import compare
from webapp.common.words import number_text
from webapp.datasets.models import REVISED, Dataset, DatasetVersion, Origin

logger = logging.getLogger(__name__)

MOST_NAMED = 3  # adapters in a sentence


def history(dataset: Dataset) -> "QuerySet[DatasetVersion]":
    """All versions, the newest first, with the jobs and adapters that used each."""
    rows = dataset.versions.select_related("created_by", "parent")
    return rows.prefetch_related("jobs", "jobs_measured", "adapters", "children")


def made_of(rows: "QuerySet[DatasetVersion]") -> str:
    """What was made with one of these versions and keeps it from vanishing, in words; empty when nothing was."""
    names = [one for field in ("jobs", "jobs_measured") for one in _names(rows, field)]
    told = [f"the job {names[0]} was made from it"] if names else []
    if adapters := _names(rows, "adapters"):
        some, rest = adapters[:MOST_NAMED], len(adapters) - MOST_NAMED
        several = f"the adapters {', '.join(some)}" + (f" and {number_text(rest)} more" if rest > 0 else "") + " were"
        told.append(f"the adapter {some[0]} was trained on it" if len(adapters) == 1 else f"{several} trained on it")
    return ", and ".join(told)


def _names(rows: "QuerySet[DatasetVersion]", field: str) -> list[str]:
    return list(rows.exclude(**{field: None}).values_list(f"{field}__name", flat=True).distinct())


def ready_before(version: DatasetVersion) -> DatasetVersion | None:
    """The version that an upload follows."""
    return version.dataset.versions.ready().filter(number__lt=version.number).first()


def split_plans(version: DatasetVersion, report: dict[str, Any]) -> dict[str, Any]:
    """How each split came to be, by its name: what was asked for when it was made, in this version or one before."""
    before = version.parent if version.origin in REVISED else ready_before(version)
    plans = before.report.get("split_plans", {}) if before else {}
    if version.origin == Origin.SPLIT:
        asked = json.loads(version.changes_path.read_text(encoding="utf-8"))
        plan = asked["splits"]
        made = plan.get("shares") or {plan.get("name", ""): 1}
        plans = plans | dict.fromkeys(made, plan | {"file": asked.get("file", "")})
    return {name: plan for name, plan in plans.items() if name in report.get("splits", {})}


def made_from(version: DatasetVersion) -> dict[str, Any]:
    """The columns `parent` and `changes` of a version that was inspected well; its rows lie in its folder already."""
    before = version.parent if version.origin in REVISED else ready_before(version)
    if before is None:
        return {}
    try:
        changes = compare(before.rows_path, version.rows_path).counts
    except (OSError, KeyError, pa.ArrowException):  # an older file that is damaged is no fault of this one
        logger.exception("what changed from %s to %s cannot be told", before, version)
        changes = {}
    return {"parent": before, "changes": changes}
