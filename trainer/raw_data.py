"""Canonical rows from any data file that a spec names: canonical files are used directly, others converted first."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from trainer.events import Emit, Finished
from trainer.formats.check import check_file


@contextmanager
def canonical_rows(path: Path, *, out: Path | None, emit: Emit) -> Iterator[Path]:
    """The rows.parquet of a file. With `out`, everything that `python -m trainer check` writes is kept there.

    Raises the TrainerErrors of the check.
    """
    if _is_canonical(path):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        target = out or Path(folder)
        # Without Finished: the check ends here, the training does not.
        check_file(
            path, target, skip_bad_rows=False, emit=lambda event: None if isinstance(event, Finished) else emit(event)
        )
        yield target / "rows.parquet"


def _is_canonical(path: Path) -> bool:
    try:
        return {"id", "line", "messages"} <= set(pq.read_schema(path).names)
    except (pa.ArrowException, OSError):
        return path.name == "rows.parquet"  # damaged: reading it will raise an error that says so
