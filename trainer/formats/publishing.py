"""How what a command makes of rows gets its name: whole, and its bytes on disk first."""

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from trainer.errors import TrainerError


@contextmanager
def aside(out: Path) -> Iterator[Path]:
    """A name in `out` to write under until all is well. Raises TrainerError(disk_full)."""
    path = out / f".aside-{uuid4().hex}"
    try:
        yield path
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise TrainerError("disk_full", "The disk is full.", "Free some space and try again.") from error
        raise
    finally:
        path.unlink(missing_ok=True)


def publish(path: Path, final: Path) -> None:
    """Rename a finished file to its name, once its bytes are on disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
    path.replace(final)


def publish_report(report: dict[str, Any], out: Path) -> None:
    with aside(out) as path:
        path.write_text(json.dumps(report, ensure_ascii=False, allow_nan=False))
        publish(path, out / "report.json")
