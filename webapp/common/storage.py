"""Where files lie, and how a file or folder appears whole or not at all."""

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID, uuid4

from django.conf import settings

PIECE = 1 << 18


def pieces_of_file(path: Path) -> Iterator[bytes]:
    """What lies in a file, for a download that holds none of it in memory."""
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            yield piece


def dataset_folder(version_id: UUID) -> Path:
    """Of a dataset version: `original`, `rows.parquet`, `report.json`."""
    return Path(settings.FILES_DIR) / "datasets" / str(version_id)


def upload_path(upload_id: UUID) -> Path:
    """Of a file that arrives in parts; below FILES_DIR, which all web processes share."""
    return Path(settings.FILES_DIR) / "uploads" / str(upload_id)


def base_folder(base_id: UUID) -> Path:
    """Of a fetched base model: config, safetensors, tokenizer, chat template."""
    return Path(settings.FILES_DIR) / "bases" / str(base_id)


def adapter_folder(adapter_id: UUID) -> Path:
    """Of a published adapter, in PEFT's layout."""
    return Path(settings.FILES_DIR) / "adapters" / str(adapter_id)


def job_folder(job_id: UUID) -> Path:
    """Of a job's attempts."""
    return Path(settings.RUNS_DIR) / str(job_id)


def attempt_folder(job_id: UUID, number: int) -> Path:
    """Of one attempt: `spec.json`, `log.txt`, `checkpoints/`, `adapter/`. No other attempt writes here."""
    return job_folder(job_id) / f"a{number}"


@contextmanager
def staged_folder(final: Path) -> Iterator[Path]:
    """A folder to fill beside `final`, renamed to it when the block ends well and removed when it does not."""
    final.parent.mkdir(parents=True, exist_ok=True)
    aside = final.parent / f".tmp-{uuid4().hex}"
    aside.mkdir()
    try:
        yield aside
        sync_tree(aside)
        aside.rename(final)
        sync_path(final.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def work_folder(path: Path) -> Iterator[Path]:
    """A folder that is empty at first and gone at the end; below a name with .tmp- the clean-up finds what is left of
    it when this process is killed."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def sync_tree(folder: Path) -> None:
    """Flush every file of a folder, and the folder, to disk."""
    for path in sorted(folder.rglob("*")):
        sync_path(path)
    sync_path(folder)


def sync_path(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def link(source: Path, target: Path) -> None:
    """The same bytes under a second name: neither is ever written to."""
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def size_of(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
