"""`python -m trainer estimate`: what a training would take, with the rows' own lengths, on this machine or another."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from trainer.base_facts import inspect_folder
from trainer.data import render_row, to_trainable
from trainer.device import find_device
from trainer.errors import TrainerError
from trainer.estimate import Estimate, Place, as_divided, estimate, plain_speed
from trainer.events import Emit, Finished, Log
from trainer.method_spec import kind_issues
from trainer.raw_data import canonical_rows
from trainer.readiness import problems_of
from trainer.rendering import Renderer
from trainer.spec import TrainSpec
from trainer.spec_values import Issue, refusal
from trainer.token_statistics import sample

SAMPLE_ROWS = 2_000  # that stand for all
WORTH_SAYING = 0.01  # of the whole; smaller parts are in the facts alone


@dataclass(frozen=True)
class Asked:
    """What is to be taken in place of the spec's rows and of this machine: tokens of a row, GB, tokens a second."""

    rows: int | None = None
    tokens: int | None = None
    device: str | None = None
    memory: float | None = None
    speed: float | None = None


@dataclass(frozen=True)
class Counted:
    """Rows, their tokens altogether, and what the longest sequence of each of some rows has."""

    rows: int
    tokens: int
    lengths: tuple[int, ...] = ()


def foretell(spec: TrainSpec, asked: Asked, emit: Emit) -> None:
    """Say memory, its parts, what would lower it, and the time; emit Finished with all of it as facts.

    Raises TrainerError(user_config) with everything that would keep the training from starting.
    """
    base = Path(spec.model.base)
    if problems := _problems(spec, base, asked):
        raise refusal(problems)
    facts, place = inspect_folder(base), _place(spec, asked)
    if asked.rows:
        counted = Counted(asked.rows, asked.rows * (asked.tokens or spec.data.max_seq_length))
    else:
        spec, counted = _count(spec, base, emit)
    found = estimate(spec, facts, rows=counted.rows, tokens=counted.tokens, lengths=counted.lengths, on=place)
    _say(found, place, emit)
    parts = [dataclasses.asdict(one) for one in found.items]
    told: dict[str, Any] = {"low": found.low, "expected": found.expected, "high": found.high, "items": parts}
    told |= {
        "fits": _fits(found, place),
        "device": place.device,
        "memory_bytes": place.memory_bytes,
        "advice": found.advice,
    }
    told |= {"rows": counted.rows, "steps": found.steps, "tokens": found.tokens, "seconds": found.seconds}
    emit(Finished(folder="", facts=told))


def _problems(spec: TrainSpec, base: Path, asked: Asked) -> list[Issue]:
    found = problems_of(spec)
    if asked.rows:
        found = [one for one in found if one.path not in ("data.path", "data.holdout_path")]
    if spec.model.base and not base.is_dir() and not any(one.path == "model.base" for one in found):
        fix = f"Fetch it first, with `python -m trainer fetch hub {base} --out DIR`, and name that folder."
        found.append(Issue("model.base", f"{base} is not on this machine.", fix))
    return found


def _place(spec: TrainSpec, asked: Asked) -> Place:
    here = find_device(spec.model.dtype)
    device = asked.device or here.place.type
    memory = here.free_bytes() + here.held_bytes() if device == here.place.type else 0
    speed = plain_speed(spec, asked.speed) if asked.speed else None
    return Place(device, round(asked.memory * 1e9) if asked.memory else memory, speed)


def _count(spec: TrainSpec, base: Path, emit: Emit) -> tuple[TrainSpec, Counted]:
    """The rows of a spec as the training would cut them; with the spec as their own split divides them."""
    renderer, task = Renderer.load(base), inspect_folder(base)["task"]
    kept, seen = [], 0
    with canonical_rows(Path(spec.data.path), out=None, emit=emit) as path:
        for row in sample(path, SAMPLE_ROWS):
            if problems := kind_issues(spec.data.method, row.kind, task):
                raise refusal(problems)
            seen += 1
            if example := to_trainable(row, render_row(row, spec, renderer)):
                kept.append(example)
        splits = pq.read_table(path, columns=["split"])["split"].value_counts().to_pylist()
        there = pq.read_metadata(path).num_rows
    if not kept:
        text = f"None of {seen:,} rows has a token to learn within {spec.data.max_seq_length} tokens."
        raise TrainerError("dataset_invalid", text, "Raise data.max_seq_length, or check that the rows hold answers.")
    divided, rows = as_divided(spec, {one["values"]: one["counts"] for one in splits if one["values"]}, there)
    rows = max(1, round(rows * len(kept) / seen))
    lengths = tuple(max(item.length for item in one.sequences) for one in kept)
    return divided, Counted(rows, round(rows * sum(one.length for one in kept) / len(kept)), lengths)


def _fits(found: Estimate, place: Place) -> bool | None:
    """Whether even the upper end is there; None where nobody knows how much there is."""
    return found.high <= place.memory_bytes if place.memory_bytes else None


def _verdict(found: Estimate, place: Place) -> str:
    if not place.memory_bytes:
        return ""
    may = "may not fit" if found.expected <= place.memory_bytes else "does not fit"
    return f"; it {'fits' if _fits(found, place) else may} into {_gb(place.memory_bytes)} ({place.device})"


def _say(found: Estimate, place: Place, emit: Emit) -> None:
    ends = f"between {_gb(found.low)} and {_gb(found.high)}"
    emit(Log(text=f"Memory: {_gb(found.expected)}, {ends}{_verdict(found, place)}"))
    for one in found.items:
        if one.expected >= WORTH_SAYING * found.expected:
            emit(Log(text=f"{_gb(one.expected)}: {one.name}. {one.lever}"))
    time = f", about {_time(found.seconds)}" if found.seconds is not None else "; --speed tells how long they take"
    emit(Log(text=f"{found.steps:,} steps, {found.tokens:,} tokens{time}"))


def _gb(size: float) -> str:
    return f"{size / 1e9:.2f} GB"


def _time(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min" if minutes else "a minute"
