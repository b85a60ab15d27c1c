"""Dataset files of every container made by code, and a check of them."""

import gzip
import io
import json
import re
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa

from trainer.errors import TrainerError
from trainer.events import Event
from trainer.formats import Row, count_rows, iter_rows
from trainer.formats.check import Known, check_file

GOOD = '{"instruction": "Who are you?", "output": "I am Lowrank."}'


def check(folder: Path, content: bytes | str, *, name: str = "file", skip: bool = False) -> dict[str, Any]:
    """The report on a file with this content, plus `failed` (the error's text) and `events`."""
    file, out = folder / "file", folder / "out"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    events: list[Event] = []
    failed = ""
    try:
        check_file(file, out, skip_bad_rows=skip, emit=events.append, known=Known(name=name))
    except TrainerError as error:
        assert error.code == "dataset_invalid"
        assert error.fix
        failed = error.text
    made = {path.name for path in out.iterdir()} - {"rows.parquet"}
    assert made == {"report.json", "bad.jsonl", "sample.json"}
    report: dict[str, Any] = json.loads((out / "report.json").read_text())
    assert report["rows"] == 0 or failed or report["rows"] == count_rows(out / "rows.parquet")
    return report | {"failed": failed, "events": events}


def rows_of(folder: Path) -> list[Row]:
    return list(iter_rows(folder / "out" / "rows.parquet"))


def bad_lines_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "out" / "bad.jsonl").read_text().splitlines()]


def zipped(**members: bytes | str) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(re.sub(r"__(\w+)$", r".\1", name), content)
    return packed.getvalue()


def zstd(content: bytes) -> bytes:
    packed: bytes = pa.Codec("zstd").compress(content, asbytes=True)
    return packed


def packed(content: bytes, how: str) -> bytes:
    """The content plain, or as .gz or .zst, or alone in an archive."""
    ways = {"": bytes, "gz": gzip.compress, "zst": zstd, "zip": lambda raw: zipped(only=raw)}
    made: bytes = ways[how](content)
    return made
