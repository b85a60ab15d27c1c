"""Removes from the disk what nobody will need again: checkpoints of ended jobs, and what killed processes left."""

import logging
import shutil
import time
from collections.abc import Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from uuid import UUID

from django.conf import settings
from django.utils import timezone

from trainer.formats.canonical import TOKENS_FOLDER
from webapp.api.expiry import remove_expired
from webapp.datasets.models import DatasetVersion, Upload
from webapp.datasets.uploads import KEPT as UPLOAD_KEPT
from webapp.jobs.models import ENDED, Job, JobStatus

logger = logging.getLogger(__name__)

LEFT_SECONDS = 24 * 3600  # what has not changed for so long is nobody's work in progress
FAILED_DAYS = 7
ATTEMPT_LEFTOVERS = ("*/a*/checkpoints", "*/a*/snapshots", "*/a*/.tmp-*")
BATCH = 500  # ids in one query


def clean_up() -> int:
    """Remove it all; returns how many files and folders went."""
    found = [*_checkpoints_of_ended_jobs(), *_left_uploads(), *_half_made_folders(), *_datasets_without_a_row()]
    found += _unfinished_uploads()
    for path in found:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    if found:
        logger.info("cleaned up %s files and folders", len(found))
    return len(found) + remove_expired()


def _checkpoints_of_ended_jobs() -> Iterator[Path]:
    """A failed job's stay for a week: the trainer can go on from the last sound state by hand."""
    by_job: dict[UUID, list[Path]] = {}
    for folder in [path for kind in ATTEMPT_LEFTOVERS for path in settings.RUNS_DIR.glob(kind)]:
        if job_id := _uuid(folder.parent.parent.name):
            by_job.setdefault(job_id, []).append(folder)
    for some in _batches(list(by_job)):
        ended = Job.objects.filter(pk__in=some, status__in=ENDED)
        kept = ended.filter(status=JobStatus.FAILED, ended_at__gt=timezone.now() - timedelta(days=FAILED_DAYS))
        for job_id in ended.exclude(pk__in=kept).values_list("pk", flat=True):
            yield from by_job[job_id]


def _left_uploads() -> Iterator[Path]:
    """Bodies whose web process was killed."""
    yield from (path for path in Path(settings.FILE_UPLOAD_TEMP_DIR).iterdir() if path.is_file() and _is_old(path))


def _unfinished_uploads() -> Iterator[Path]:
    """Files that nobody goes on sending, and parts of files whose row is gone."""
    for upload in Upload.objects.filter(touched_at__lt=timezone.now() - UPLOAD_KEPT):
        yield upload.path
        upload.delete()
    known = {str(pk) for pk in Upload.objects.values_list("pk", flat=True)}
    yield from (path for path in settings.FILES_DIR.glob("uploads/*") if path.name not in known and _is_old(path))


def _half_made_folders() -> Iterator[Path]:
    """What was written aside, and whose maker was killed before it could put it in place."""
    folders = ("datasets", "datasets/*", f"datasets/*/{TOKENS_FOLDER}", "adapters", "api", "bases/*")
    yield from (path for one in folders for path in settings.FILES_DIR.glob(f"{one}/.tmp-*") if _is_old(path))


def _datasets_without_a_row() -> Iterator[Path]:
    """Uploads whose web process was killed between moving the file and writing the row.

    Only what was never inspected: folders with results stay, for a database may have been exchanged by mistake.
    """
    folders = settings.FILES_DIR.glob("datasets/*")
    bare = {version_id: path for path in folders if (version_id := _uuid(path.name)) and _is_bare(path)}
    for some in _batches(list(bare)):
        known = set(DatasetVersion.objects.filter(pk__in=some).values_list("pk", flat=True))
        yield from (bare[version_id] for version_id in some if version_id not in known)


def _is_bare(folder: Path) -> bool:
    return _is_old(folder) and {path.name for path in folder.iterdir()} <= {"original"}


def _is_old(path: Path) -> bool:
    """Whether neither it nor anything in it has changed for a day. What vanishes meanwhile is not ours to remove."""
    try:
        changed = max(one.lstat().st_mtime for one in (path, *path.rglob("*")))
    except FileNotFoundError:
        return False
    return time.time() - changed > LEFT_SECONDS


def _batches(ids: list[UUID]) -> Iterable[list[UUID]]:
    return (ids[start : start + BATCH] for start in range(0, len(ids), BATCH))


def _uuid(name: str) -> UUID | None:
    try:
        return UUID(name)
    except ValueError:
        return None
