"""How what a command makes of rows gets its name: whole, and its bytes on disk first."""

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

BEGIN_AT_ONCE = 16 * 1024 * 1024  # bytes


@contextmanager
def aside(out: Path) -> Iterator[Path]:
    """A name in `out` to write under until all is well. Raises TrainerError(disk_full)."""
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
    return getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL  # Python's own of this kind have no number


def publish(path: Path, final: Path) -> None:
    """Rename a finished file to its name, once its bytes are on disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
    path.replace(final)


def publish_report(report: dict[str, Any], out: Path) -> None:
    with aside(out) as path:
        path.write_text(json.dumps(report, ensure_ascii=False, allow_nan=False))
        publish(path, out / "report.json")


class EarlySync:
    """Has the disk begin with what was written of a large file; to publish it would else wait for all of it."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._begun = 0

    def go_on(self) -> None:
        """Call this now and then; it waits for nothing."""
        size = os.fstat(self._file.fileno()).st_size
        if size - self._begun >= BEGIN_AT_ONCE and hasattr(os, "posix_fadvise"):
            # Linux starts to write what is new and waits for none of it; what is not written yet stays in memory.
            with suppress(OSError):  # of a file system that takes no advice
                os.posix_fadvise(self._file.fileno(), self._begun, size - self._begun, os.POSIX_FADV_DONTNEED)
            self._begun = size

    def close(self) -> None:
        self._file.close()
