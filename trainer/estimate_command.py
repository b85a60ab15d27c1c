"""`python -m trainer estimate`: what a run would take, from its rows' actual lengths, on this machine or another."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from trainer.base_facts import inspect_folder
from trainer.data import Truncation, nothing_left, render_row, to_trainable
from trainer.device import find_device
from trainer.estimate import Estimate, Hardware, estimate, plain_speed, with_evaluation_rows, with_split_holdout
from trainer.events import Emit, Finished, Log
from trainer.method_spec import kind_issues
from trainer.raw_data import canonical_rows
from trainer.readiness import problems_of
from trainer.rendering import Renderer
from trainer.spec import TrainSpec
from trainer.spec_values import Issue, refusal
from trainer.token_statistics import sample

SAMPLE_ROWS = 2_000
MIN_SHARE = 0.01  # of the total; smaller items are only in the facts


@dataclass(frozen=True)
class Overrides:
    """What replaces the spec's rows and this machine. `tokens`: per row; `memory`: GB; `speed`: tokens per second."""

    rows: int | None = None
    tokens: int | None = None
    device: str | None = None
    memory: float | None = None
    speed: float | None = None


@dataclass(frozen=True)
class RowStats:
    """Number of rows, their total tokens, and the longest sequence of each row in a sample."""

    rows: int
    tokens: int
    lengths: tuple[int, ...] = ()


def run(spec: TrainSpec, overrides: Overrides, emit: Emit) -> None:
    """Log the memory, its items, how to lower them, and the time; emit Finished with all of it as facts.

    Raises TrainerError(user_config) with everything that would keep the run from starting.
    """
    base = Path(spec.model.base)
    if problems := _problems(spec, base, overrides):
        raise refusal(problems)
    facts, hardware = inspect_folder(base), _hardware(spec, overrides)
    if overrides.rows:
        stats = RowStats(overrides.rows, overrides.rows * (overrides.tokens or spec.data.max_seq_length))
    else:
        spec, stats = _count_rows(spec, base, emit)
    if spec.data.holdout_path and (held_out := _evaluation_rows(Path(spec.data.holdout_path), emit)):
        spec, rows = with_evaluation_rows(spec, stats.rows, held_out)
        stats = RowStats(rows, round(stats.tokens * rows / stats.rows), stats.lengths)
    found = estimate(spec, facts, rows=stats.rows, tokens=stats.tokens, lengths=stats.lengths, on=hardware)
    _log(found, hardware, emit)
    items = [dataclasses.asdict(one) for one in found.items]
    summary: dict[str, Any] = {"low": found.low, "expected": found.expected, "high": found.high, "items": items}
    summary |= {
        "fits": _fits(found, hardware),
        "device": hardware.device,
        "memory_bytes": hardware.memory_bytes,
        "advice": found.advice,
    }
    summary |= {"rows": stats.rows, "steps": found.steps, "tokens": found.tokens, "seconds": found.seconds}
    emit(Finished(folder="", facts=summary))


def _problems(spec: TrainSpec, base: Path, overrides: Overrides) -> list[Issue]:
    found = problems_of(spec)
    if overrides.rows:
        found = [one for one in found if one.path not in ("data.path", "data.holdout_path")]
    if spec.model.base and not base.is_dir() and not any(one.path == "model.base" for one in found):
        fix = f"Fetch it first, with `python -m trainer fetch hub {base} --out DIR`, and name that folder."
        found.append(Issue("model.base", f"{base} is not on this machine.", fix))
    return found


def _hardware(spec: TrainSpec, overrides: Overrides) -> Hardware:
    here = find_device(spec.model.dtype)
    device = overrides.device or here.place.type
    is_here = device == here.place.type
    memory = here.free_bytes() + here.held_bytes() if is_here else 0
    speed = plain_speed(spec, overrides.speed) if overrides.speed else None
    memory = round(overrides.memory * 1e9) if overrides.memory else memory
    return Hardware(device, memory, speed, here.dtype_name if is_here else Hardware.auto_dtype)


def _count_rows(spec: TrainSpec, base: Path, emit: Emit) -> tuple[TrainSpec, RowStats]:
    """The rows of a spec, tokenised as in training, and the spec with the holdout share of their splits."""
    renderer, task = Renderer.load(base), inspect_folder(base)["task"]
    kept, seen, cuts = [], 0, Truncation()
    with canonical_rows(Path(spec.data.path), out=None, emit=emit) as path:
        for row in sample(path, SAMPLE_ROWS):
            if problems := kind_issues(spec.data.method, row.kind, task):
                raise refusal(problems)
            seen += 1
            examples = render_row(row, spec, renderer)
            cuts.count(examples)
            if example := to_trainable(row, examples):
                kept.append(example)
        splits = pq.read_table(path, columns=["split"])["split"].value_counts().to_pylist()
        there = pq.read_metadata(path).num_rows
    if not kept:
        raise nothing_left("the dataset", seen, cuts, spec)
    divided, rows = with_split_holdout(spec, {one["values"]: one["counts"] for one in splits if one["values"]}, there)
    rows = max(1, round(rows * len(kept) / seen))
    lengths = tuple(max(item.length for item in one.sequences) for one in kept)
    return divided, RowStats(rows, round(rows * sum(one.length for one in kept) / len(kept)), lengths)


def _evaluation_rows(file: Path, emit: Emit) -> int:
    """Rows of the evaluation file. It need not be there yet if the number of rows is given."""
    if not file.is_file():
        return 0
    with canonical_rows(file, out=None, emit=emit) as path:
        return int(pq.read_metadata(path).num_rows)


def _fits(found: Estimate, hardware: Hardware) -> bool | None:
    """Whether even the upper estimate fits; None if the memory is unknown."""
    return found.high <= hardware.memory_bytes if hardware.memory_bytes else None


def _verdict(found: Estimate, hardware: Hardware) -> str:
    if not hardware.memory_bytes:
        return ""
    may = "may not fit" if found.expected <= hardware.memory_bytes else "does not fit"
    return f"; it {'fits' if _fits(found, hardware) else may} into {_gb(hardware.memory_bytes)} ({hardware.device})"


def _log(found: Estimate, hardware: Hardware, emit: Emit) -> None:
    ends = f"between {_gb(found.low)} and {_gb(found.high)}"
    emit(Log(text=f"Memory: {_gb(found.expected)}, {ends}{_verdict(found, hardware)}"))
    for one in found.items:
        if one.expected >= MIN_SHARE * found.expected:
            emit(Log(text=f"{_gb(one.expected)}: {one.name}. {one.lever}"))
    time = f", about {_time(found.seconds)}" if found.seconds is not None else "; give --speed for the time they take"
    emit(Log(text=f"{found.steps:,} steps, {found.tokens:,} tokens{time}"))


def _gb(size: float) -> str:
    return f"{size / 1e9:.2f} GB"


def _time(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min" if minutes else "a minute"
