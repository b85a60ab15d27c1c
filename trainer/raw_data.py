"""From whatever file a spec names to canonical rows: those are taken as they are, any other file is checked first."""

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
    """The rows.parquet of a file. What `python -m trainer check` would write stays in `out`, where one is named.

    Raises TrainerError as the check does.
    """
    if _is_canonical(path):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        place = out or Path(folder)
        # The check's end is not the training's.
        check_file(
            path, place, skip_bad_rows=False, emit=lambda event: None if isinstance(event, Finished) else emit(event)
        )
        yield place / "rows.parquet"


def _is_canonical(path: Path) -> bool:
    try:
        return {"id", "line", "messages"} <= set(pq.read_schema(path).names)
    except (pa.ArrowException, OSError):
        return path.name == "rows.parquet"  # a damaged one, which whoever reads it will name
