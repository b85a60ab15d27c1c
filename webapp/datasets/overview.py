"""What the overview says of a version: what the check and the survey found, with the way to the rows."""

from dataclasses import dataclass
from typing import Any

from trainer.formats.finding_kinds import KINDS, FindingKind
from webapp.datasets.models import DatasetVersion, SurveyStatus
from webapp.datasets.preview import findings

NOTHING = "Every row is good: no errors, no repeated rows, nothing passed over."


@dataclass(frozen=True)
class Script:
    """Letters that rows are written in; no name: the rows have hardly any."""

    name: str
    rows: int
    percent: float


def overview(version: DatasetVersion) -> dict[str, Any]:
    """Sentences of the check, kinds that the survey found with how many rows, and whether it still looks."""
    looking = version.survey_status in (SurveyStatus.WAITING, SurveyStatus.RUNNING) and not version.is_surveyed
    failed = version.survey_status == SurveyStatus.FAILED and not version.is_surveyed
    told, in_rows = findings(version.report, surveyed=version.is_surveyed), _in_rows(version)
    if not (told or in_rows or looking or failed):
        told = [("good", NOTHING)]
    return {"findings": told, "in_rows": in_rows, "looking": looking, "failed": failed, "scripts": _scripts(version)}


def _in_rows(version: DatasetVersion) -> list[tuple[FindingKind, int]]:
    counts = version.survey_report.get("findings", {})
    return [(kind, counts[kind.name]) for kind in KINDS if counts.get(kind.name)]


def _scripts(version: DatasetVersion) -> list[Script]:
    """In which letters the rows are written, the most frequent first; none where all are alike."""
    counts: dict[str, int] = version.survey_report.get("scripts", {})
    if sum(map(bool, counts)) < 2:
        return []
    return [Script(name, rows, 100 * rows / max(1, version.row_count)) for name, rows in counts.items()]
