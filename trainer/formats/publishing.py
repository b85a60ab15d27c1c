"""Atomic output files: written under a temporary name, synced to disk, then renamed."""

import errno
import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from trainer.errors import TrainerError

WRITEBACK_BYTES = 16 * 1024 * 1024  # bytes


@contextmanager
def staging_path(out: Path) -> Iterator[Path]:
    """A temporary path in `out`, removed at the end. Raises TrainerError(disk_full)."""
    path = out / f".aside-{uuid4().hex}"
    try:
        yield path
    except (OSError, sqlite3.OperationalError) as error:
        if _is_disk(error):
            raise TrainerError("disk_full", "The disk is full.", "Free some space and try again.") from error
        raise
    finally:
        path.unlink(missing_ok=True)


def _is_disk(error: OSError | sqlite3.OperationalError) -> bool:
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return (
        getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
    )  # errors of the sqlite3 module itself have no code


def publish(path: Path, final: Path) -> None:
    """Sync a finished file to disk, then rename it."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
    path.replace(final)


def publish_report(report: dict[str, Any], out: Path) -> None:
    with staging_path(out) as path:
        path.write_text(json.dumps(report, ensure_ascii=False, allow_nan=False))
        publish(path, out / "report.json")


class EarlySync:
    """Starts to write a large file to disk while it grows; otherwise publish() would wait for all of it."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._started = 0

    def start_writeback(self) -> None:
        """Call this now and then; it does not block."""
        size = os.fstat(self._file.fileno()).st_size
        if size - self._started >= WRITEBACK_BYTES and hasattr(os, "posix_fadvise"):
            # Linux starts writing dirty pages without waiting; those not written yet stay cached.
            with suppress(OSError):  # file systems without fadvise
                os.posix_fadvise(self._file.fileno(), self._started, size - self._started, os.POSIX_FADV_DONTNEED)
            self._started = size

    def close(self) -> None:
        self._file.close()
