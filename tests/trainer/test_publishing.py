"""What a command makes of rows gets its name when it is whole; a full disk is called so, whoever tells of it."""

import errno
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from trainer.errors import TrainerError
from trainer.formats.publishing import publish, staging_path


def fill(path: Path) -> None:
    """As SQLite on a disk with room for three pages."""
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA max_page_count = 3")
        database.execute("CREATE TABLE texts (text TEXT)")
        database.execute("INSERT INTO texts VALUES (?)", ("x" * 100_000,))


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, None])
def test_a_full_disk_is_called_so_and_leaves_nothing(code: int | None, tmp_path: Path) -> None:
    with pytest.raises(TrainerError) as caught, staging_path(tmp_path) as path:
        if code is None:
            fill(path)
        path.write_text("half")
        raise OSError(code, "no more")
    assert caught.value.code == "disk_full"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [OSError(errno.EIO, "broken"), sqlite3.OperationalError("no such table: texts")])
def test_other_failures_stay_what_they_are(error: Exception, tmp_path: Path) -> None:
    with pytest.raises(type(error)), staging_path(tmp_path) as path:
        path.write_text("half")
        raise error
    assert list(tmp_path.iterdir()) == []


def test_what_is_whole_gets_its_name(tmp_path: Path) -> None:
    with staging_path(tmp_path) as path:
        path.write_text("all of it")
        publish(path, tmp_path / "rows")
    assert [(one.name, one.read_text()) for one in tmp_path.iterdir()] == [("rows", "all of it")]
