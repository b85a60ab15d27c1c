"""Rows as tokens, kept beside a dataset: another training on the same rows and base need not tokenise them again.

Where a folder `tokens` stands beside the rows of a spec, what `load_dataset` gives is kept in it, under a hash of all
that makes it: the rows, the tokenizer with its templates, the values of the spec, and this library's own code.
"""

import hashlib
import json
import os
import re
import time
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa

from trainer.data import (
    Dataset,
    Item,
    LabelledAnswer,
    PreferencePair,
    Trainable,
    Truncation,
    check_held_out,
    load_dataset,
)
from trainer.events import Emit, Event, Log
from trainer.formats.canonical import TOKENS_FOLDER
from trainer.rendering import Renderer
from trainer.spec import TrainSpec

MIN_SECONDS = 2.0  # of making them; less is not worth a file
MAX_FILES = 8  # of one dataset, for different bases and lengths
ROWS_AT_ONCE = 5_000
# How a chat template, also one within JSON, writes the moment with a format of its own; and where it names that at all.
STRFTIME_CALL = re.compile(rb"""strftime_now\s*\(\s*\\?(["'])([^"'\\]*)\\?\1\s*\)""")
STRFTIME_MENTION = re.compile(rb"strftime_now(?!\s+is\s+(?:not\s+)?defined)")
SEQUENCE = pa.struct([("ids", pa.binary()), ("trained", pa.binary()), ("source", pa.int32())])
SCHEMA = pa.schema([("held_out", pa.bool_()), ("good", pa.bool_()), ("sequences", pa.list_(SEQUENCE))])


def load_tokens(spec: TrainSpec, renderer: Renderer, emit: Emit, *, base: Path, moment: datetime, out: Path) -> Dataset:
    """What `load_dataset` gives, from an earlier training where one kept it. `moment`: what templates take for now."""
    folder = Path(spec.data.path).parent / TOKENS_FOLDER
    # What is measured on another dataset's rows is not kept beside these: they may be deleted apart.
    if not folder.is_dir() or spec.data.holdout_path:
        return load_dataset(spec, renderer, emit, out=out)
    file = folder / f"{_key(spec, base, moment)}.arrow"
    if kept := _read(file):
        dataset, logs = kept
        check_held_out(dataset, spec)
        emit(Log(text="The rows are tokenised already, by an earlier training"))
        for log in logs:
            emit(Log(**log))
        return dataset
    began, said = time.monotonic(), list[Event]()

    def remembered(event: Event) -> None:
        said.append(event)
        emit(event)

    dataset = load_dataset(spec, renderer, remembered, out=out)
    if time.monotonic() - began >= MIN_SECONDS:
        _write(file, dataset, [{"text": one.text, "level": one.level} for one in said if isinstance(one, Log)])
    return dataset


def _key(spec: TrainSpec, base: Path, moment: datetime) -> str:
    """A hash of all that makes the tokens."""
    found = hashlib.sha256(_code())
    with Path(spec.data.path).open("rb") as rows:
        found.update(hashlib.file_digest(rows, "sha256").digest())
    # The configs name the tokens that end an answer.
    configs = [base / "config.json", base / "generation_config.json"]
    files = [*configs, *sorted(base.glob("*token*")), *sorted(base.rglob("*.jinja"))]
    texts = [file.read_bytes() for file in files if file.is_file()]
    for text in texts:
        found.update(hashlib.sha256(text).digest())
    values: dict[str, Any] = {**spec.to_dict()["data"], "path": "", "seed": spec.optim.seed}
    values["moment"] = [_rendered_time(text, moment) for text in texts]
    found.update(json.dumps(values, sort_keys=True).encode())
    return found.hexdigest()


def _rendered_time(text: bytes, moment: datetime) -> list[str]:
    """What a chat template writes of a moment, so that rows tokenised earlier on the same day serve again where it
    writes the day; the whole moment, where it is not plain what is written."""
    calls = [call[1] for call in STRFTIME_CALL.findall(text)]
    if len(calls) < len(STRFTIME_MENTION.findall(text)):
        return [moment.isoformat()]
    return [moment.strftime(one.decode(errors="replace")) for one in calls]


@lru_cache
def _code() -> bytes:
    """What this library's own code is: another version may render otherwise."""
    files = sorted(Path(__file__).parent.rglob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).digest()


def _write(file: Path, dataset: Dataset, logs: Sequence[dict[str, str]]) -> None:
    """Whole or not at all; that a disk is full keeps no training from going on."""
    told = {"content_hash": dataset.content_hash, "rows": dataset.rows, "untrained": dataset.untrained}
    told |= {"cuts": asdict(dataset.truncation), "logs": logs, "kept": [len(dataset.train), len(dataset.holdout)]}
    schema = SCHEMA.with_metadata({"told": json.dumps(told)})
    part = file.with_name(f".tmp-{file.name}.{os.getpid()}")
    try:
        with pa.OSFile(str(part), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
            for batch in _batches(dataset, schema):
                writer.write_batch(batch)
        part.replace(file)
        kept = sorted(file.parent.glob("*.arrow"), key=lambda one: one.stat().st_mtime)
        for old in kept[:-MAX_FILES]:
            old.unlink(missing_ok=True)
    except OSError:
        part.unlink(missing_ok=True)


def _batches(dataset: Dataset, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    for held_out, rows in ((False, dataset.train), (True, dataset.holdout)):
        for start in range(0, len(rows), ROWS_AT_ONCE):
            some = [_told(row) | {"held_out": held_out} for row in rows[start : start + ROWS_AT_ONCE]]
            yield pa.RecordBatch.from_pylist(some, schema=schema)


def _told(row: Trainable) -> dict[str, Any]:
    good, items = None, list(row.sequences)
    if isinstance(row, LabelledAnswer):
        good, items = row.desirable, [row.answer, *([row.mismatch] if row.mismatch else [])]
    sequences = [{"ids": one.ids.tobytes(), "trained": one.loss_mask, "source": one.source} for one in items]
    return {"good": good, "sequences": sequences}


def _read(file: Path) -> tuple[Dataset, list[dict[str, Any]]] | None:
    """None where there is no such file, or a damaged one."""
    parts: tuple[list[Trainable], list[Trainable]] = ([], [])
    try:
        with pa.memory_map(str(file)) as source, pa.ipc.open_stream(source) as reader:
            told = json.loads(reader.schema.metadata[b"told"])
            for batch in reader:
                for row in batch.to_pylist():
                    parts[row["held_out"]].append(_row(row))
        os.utime(file)
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError):
        return None
    if told["kept"] != [len(part) for part in parts]:  # cut off between two batches, which the format takes for its end
        return None
    dataset = Dataset(*parts, told["content_hash"], told["rows"], Truncation(**told["cuts"]), told["untrained"])
    return dataset, told["logs"]


def _row(told: dict[str, Any]) -> Trainable:
    items = [Item(array("i", one["ids"]), one["trained"], one["source"]) for one in told["sequences"]]
    if told["good"] is not None:
        return LabelledAnswer(items[0], desirable=told["good"], mismatch=items[1] if len(items) > 1 else None)
    return PreferencePair(items[0], items[1]) if len(items) > 1 else items[0]
