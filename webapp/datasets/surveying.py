"""One survey of a version that is ready, from taking it to rows that can be searched."""

import json
import logging
from pathlib import Path
from typing import Any
from uuid import UUID

from trainer.errors import EXIT_CODES
from webapp.common.pulse import Pulse
from webapp.common.storage import sync_path, work_folder
from webapp.datasets import survey_lifecycle
from webapp.datasets.child import Ending, run_survey
from webapp.datasets.models import DatasetVersion

logger = logging.getLogger(__name__)

MOST_SURVEYS = 3  # rows whose survey was cut short this often are the cause themselves


def survey_version(version_id: UUID, survey: int) -> None:
    """Carry through the survey that was begun, and say what came of it."""
    version = DatasetVersion.objects.get(pk=version_id)
    if survey > MOST_SURVEYS:
        survey_lifecycle.fail(version_id, survey, "The survey was interrupted too often.")
        return
    pulse = Pulse(lambda: survey_lifecycle.beat(version_id, survey))
    with work_folder(version.aside(f"survey-{survey}")) as out:
        ending = run_survey(version.rows_path, out, still_ours=pulse)
        if ending is not None:
            _conclude(version, survey, ending=ending, out=out)


def broken(mark: str) -> str:
    """The failure when our own code failed."""
    return f"The survey failed on our side (error {mark}); the server's log has the cause."


def _conclude(version: DatasetVersion, survey: int, *, ending: Ending, out: Path) -> None:
    report = _report_in(out)
    if ending.status == EXIT_CODES["finished"] and report:
        # Whichever survey moves its file here, it is the same; only the row makes it visible.
        (out / "survey.sqlite").replace(version.survey_path)
        sync_path(version.folder)
        survey_lifecycle.finish(version.pk, survey, report)
    elif ending.was_killed and survey < MOST_SURVEYS:
        logger.warning("survey %s of %s %s: it is made again", survey, version.pk, ending.cause)
        survey_lifecycle.give_back(version.pk, survey)
    else:
        logger.error("survey of %s ended with %s: %s", version.pk, ending.status, ending.stderr)
        survey_lifecycle.fail(version.pk, survey, _unexpected(ending))


def _report_in(out: Path) -> dict[str, Any] | None:
    try:
        report: dict[str, Any] = json.loads((out / "survey.json").read_text())
    except (FileNotFoundError, ValueError):
        return None
    return report


def _unexpected(ending: Ending) -> str:
    if ending.out_of_time:
        return "Going through all rows took too long."
    if ending.failed and ending.failed.code != "internal":
        return ending.failed.text
    return f"The survey {ending.cause}."
