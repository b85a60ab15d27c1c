"""A cache of tokenised rows beside a dataset, for later runs on the same rows and base model.

If there is a folder `tokens` beside a spec's rows, the result of `load_dataset` is stored there, under a hash of all
that determines it: the rows, the tokenizer with its templates, the values of the spec, and this library's own code.
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

MIN_SECONDS = 2.0  # of tokenising; faster results are not cached
MAX_FILES = 8  # per dataset, for different bases and lengths
ROWS_AT_ONCE = 5_000
# A chat template's calls of strftime_now with a literal format, also inside JSON; and every mention of it at all.
STRFTIME_CALL = re.compile(rb"""strftime_now\s*\(\s*\\?(["'])([^"'\\]*)\\?\1\s*\)""")
STRFTIME_MENTION = re.compile(rb"strftime_now(?!\s+is\s+(?:not\s+)?defined)")
SEQUENCE = pa.struct([("ids", pa.binary()), ("trained", pa.binary()), ("source", pa.int32())])
SCHEMA = pa.schema([("held_out", pa.bool_()), ("good", pa.bool_()), ("sequences", pa.list_(SEQUENCE))])


def load_tokens(spec: TrainSpec, renderer: Renderer, emit: Emit, *, base: Path, moment: datetime, out: Path) -> Dataset:
    """`load_dataset`, through the cache. `moment`: what templates take as the current time."""
    folder = Path(spec.data.path).parent / TOKENS_FOLDER
    # Evaluation rows of another dataset are not cached here: either dataset may be deleted without the other.
    if not folder.is_dir() or spec.data.holdout_path:
        return load_dataset(spec, renderer, emit, out=out)
    file = folder / f"{_key(spec, base, moment)}.arrow"
    if cached := _read(file):
        dataset, logs = cached
        check_held_out(dataset, spec)
        emit(Log(text="Using rows tokenised by an earlier run"))
        for log in logs:
            emit(Log(**log))
        return dataset
    began, emitted = time.monotonic(), list[Event]()

    def recording(event: Event) -> None:
        emitted.append(event)
        emit(event)

    dataset = load_dataset(spec, renderer, recording, out=out)
    if time.monotonic() - began >= MIN_SECONDS:
        _write(file, dataset, [{"text": one.text, "level": one.level} for one in emitted if isinstance(one, Log)])
    return dataset


def _key(spec: TrainSpec, base: Path, moment: datetime) -> str:
    """A hash of all that determines the tokens."""
    key = hashlib.sha256(_code())
    with Path(spec.data.path).open("rb") as rows:
        key.update(hashlib.file_digest(rows, "sha256").digest())
    # The configs name the end-of-sequence tokens.
    configs = [base / "config.json", base / "generation_config.json"]
    files = [*configs, *sorted(base.glob("*token*")), *sorted(base.rglob("*.jinja"))]
    texts = [file.read_bytes() for file in files if file.is_file()]
    for text in texts:
        key.update(hashlib.sha256(text).digest())
    values: dict[str, Any] = {**spec.to_dict()["data"], "path": "", "seed": spec.optim.seed}
    values["moment"] = [_rendered_time(text, moment) for text in texts]
    key.update(json.dumps(values, sort_keys=True).encode())
    return key.hexdigest()


def _rendered_time(text: bytes, moment: datetime) -> list[str]:
    """What a chat template writes of a moment, so that a template with only the date hits the cache all day.

    The whole moment if that cannot be derived from the template's text.
    """
    calls = [call[1] for call in STRFTIME_CALL.findall(text)]
    if len(calls) < len(STRFTIME_MENTION.findall(text)):
        return [moment.isoformat()]
    return [moment.strftime(one.decode(errors="replace")) for one in calls]


@lru_cache
def _code() -> bytes:
    """A hash of this library's code: another version may render rows differently."""
    files = sorted(Path(__file__).parent.rglob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).digest()


def _write(file: Path, dataset: Dataset, logs: Sequence[dict[str, str]]) -> None:
    """Write atomically. A full disk is no error: the run continues without a cache file."""
    facts = {"content_hash": dataset.content_hash, "rows": dataset.rows, "untrained": dataset.untrained}
    facts |= {"cuts": asdict(dataset.truncation), "logs": logs, "kept": [len(dataset.train), len(dataset.holdout)]}
    schema = SCHEMA.with_metadata({"told": json.dumps(facts)})
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
            some = [_to_record(row) | {"held_out": held_out} for row in rows[start : start + ROWS_AT_ONCE]]
            yield pa.RecordBatch.from_pylist(some, schema=schema)


def _to_record(row: Trainable) -> dict[str, Any]:
    desirable, items = None, list(row.sequences)
    if isinstance(row, LabelledAnswer):
        desirable, items = row.desirable, [row.answer, *([row.mismatch] if row.mismatch else [])]
    sequences = [{"ids": one.ids.tobytes(), "trained": one.loss_mask, "source": one.source} for one in items]
    return {"good": desirable, "sequences": sequences}


def _read(file: Path) -> tuple[Dataset, list[dict[str, Any]]] | None:
    """None if the file is missing or damaged."""
    parts: tuple[list[Trainable], list[Trainable]] = ([], [])
    try:
        with pa.memory_map(str(file)) as source, pa.ipc.open_stream(source) as reader:
            facts = json.loads(reader.schema.metadata[b"told"])
            for batch in reader:
                for row in batch.to_pylist():
                    parts[row["held_out"]].append(_from_record(row))
        os.utime(file)
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError):
        return None
    if facts["kept"] != [len(part) for part in parts]:  # cut off between batches, which Arrow reads as the end
        return None
    dataset = Dataset(*parts, facts["content_hash"], facts["rows"], Truncation(**facts["cuts"]), facts["untrained"])
    return dataset, facts["logs"]


def _from_record(record: dict[str, Any]) -> Trainable:
    items = [Item(array("i", one["ids"]), one["trained"], one["source"]) for one in record["sequences"]]
    if record["good"] is not None:
        return LabelledAnswer(items[0], desirable=record["good"], mismatch=items[1] if len(items) > 1 else None)
    return PreferencePair(items[0], items[1]) if len(items) > 1 else items[0]
