"""The clean-up removes what nobody will need again, and nothing else."""

import os
import time
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from django.conf import settings
from django.utils import timezone

from tests.cast import Cast
from tests.make import make_adapter, make_attempt, make_base, make_dataset, make_job
from webapp.common.storage import dataset_folder
from webapp.jobs.models import ENDED, JobStatus
from webapp.system import tasks
from webapp.system.cleaning import LEFT_SECONDS, clean_up


@pytest.fixture(autouse=True)
def empty(db: None) -> None:
    """What other tests left in the data folder goes first."""
    clean_up()


def make_folder(path: Path, *, old: bool, file: str = "file") -> Path:
    path.mkdir(parents=True)
    (path / file).write_text("x")
    for one in (path / file, path):
        age(one, old=old)
    return path


def age(path: Path, *, old: bool) -> None:
    when = time.time() - (LEFT_SECONDS + 60 if old else 60)
    os.utime(path, (when, when))


@pytest.mark.parametrize("status", JobStatus)
def test_checkpoints_of_ended_jobs(cast: Cast, status: JobStatus) -> None:
    job = make_job(cast.team, status=status, ended_at=timezone.now() - timedelta(days=8) if status in ENDED else None)
    first, second = make_attempt(job), make_attempt(job)
    for attempt in (first, second):
        make_folder(attempt.folder / "checkpoints" / "step-000001", old=False)
    clean_up()
    ended = status in ENDED
    assert [(attempt.folder / "checkpoints").exists() for attempt in (first, second)] == [not ended] * 2
    assert (first.folder / "log.txt").is_file()


def test_a_failed_job_keeps_its_last_sound_state_for_a_week(cast: Cast) -> None:
    attempt = make_attempt(make_job(cast.team, status=JobStatus.FAILED, ended_at=timezone.now() - timedelta(days=6)))
    folder = make_folder(attempt.folder / "checkpoints" / "step-000001", old=True)
    clean_up()
    assert folder.exists()


def test_checkpoints_of_a_job_that_is_not_known_here_stay() -> None:
    """Another database may know it."""
    folder = make_folder(settings.RUNS_DIR / str(uuid4()) / "a1" / "checkpoints", old=True)
    clean_up()
    assert folder.exists()


@pytest.mark.parametrize("old", [True, False])
def test_uploads_and_half_made_folders_of_killed_processes(old: bool) -> None:
    upload = Path(settings.FILE_UPLOAD_TEMP_DIR) / f"{uuid4().hex}.upload"
    upload.write_text("x")
    age(upload, old=old)
    kinds = ("datasets", "adapters", "api", f"bases/{uuid4()}", f"datasets/{uuid4()}", f"datasets/{uuid4()}/tokens")
    left = [make_folder(settings.FILES_DIR / kind / f".tmp-{uuid4().hex}", old=old) for kind in kinds]
    assert clean_up() == (7 if old else 0)
    assert [one.exists() for one in (upload, *left)] == [not old] * 7


def test_a_folder_that_something_still_grows_in_stays() -> None:
    folder = make_folder(settings.FILES_DIR / "bases" / str(uuid4()) / f".tmp-{uuid4().hex}", old=True)
    age(folder / "file", old=False)
    assert clean_up() == 0


def test_an_upload_without_a_row() -> None:
    killed = make_folder(dataset_folder(uuid4()), old=True, file="original")
    young = make_folder(dataset_folder(uuid4()), old=False, file="original")
    results = make_folder(dataset_folder(uuid4()), old=True, file="rows.parquet")
    clean_up()
    assert [one.exists() for one in (killed, young, results)] == [False, True, True]


def test_what_rows_point_to_stays(cast: Cast) -> None:
    version = make_dataset(cast.team).versions.get()
    adapter = make_adapter(cast.team, make_base())
    for path in (*version.folder.iterdir(), version.folder, *adapter.folder.iterdir(), adapter.folder):
        age(path, old=True)
    before = {path for path in settings.FILES_DIR.rglob("*")}
    tasks.clean()
    assert {path for path in settings.FILES_DIR.rglob("*")} == before
