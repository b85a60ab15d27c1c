"""What a job will take, shown before it is queued: the trainer's estimate for this base, these rows, these machines."""

import json
import logging
from dataclasses import asdict, dataclass
from typing import Any, cast
from uuid import UUID

from django.core.cache import cache

from trainer.errors import TrainerError
from trainer.estimate import (
    Estimate,
    Hardware,
    ObservedPeak,
    calibrated,
    estimate,
    plain_speed,
    with_evaluation_rows,
    with_split_holdout,
)
from trainer.formats import Row, read_rows
from trainer.rendering import Renderer
from trainer.spec import Dtype, TrainSpec
from webapp.adapters.models import BaseModel
from webapp.adapters.token_counts import counts_of
from webapp.common.words import number_text
from webapp.datasets.models import DatasetVersion
from webapp.jobs.models import Job, JobEvent, JobStatus, Worker

logger = logging.getLogger(__name__)

SAMPLE_ROWS = 64
SAMPLE_CHARACTERS = 1_000_000  # tokenised in about a second
CHARACTERS_PER_TOKEN = 4
TIGHT = 0.6  # of the machine's memory
JOBS_LOOKED_AT = 8  # the newest ones of a kind: how far their estimates were off


@dataclass(frozen=True)
class Slice:
    """One part of the stacked memory bar, in hundredths of the whole."""

    name: str
    size: int
    start: float
    width: float
    place: int


@dataclass(frozen=True)
class Outlook:
    """The card beside the form of a new job."""

    estimate: Estimate
    slices: list[Slice]
    machine: Worker | None
    is_slow_format: bool = False

    @property
    def capacity(self) -> int:
        return self.machine.memory_bytes if self.machine else 0

    @property
    def fits(self) -> bool:
        """Whether even the upper end is there: who is told that it fits must not run out of memory."""
        return not self.capacity or self.estimate.high <= self.capacity

    @property
    def is_too_much(self) -> bool:
        return self.estimate.expected > self.capacity

    @property
    def is_tight(self) -> bool:
        """Whether to say what would lower it: the upper end of the estimate comes near what there is."""
        return self.estimate.high > TIGHT * self.capacity


def outlook(
    spec: TrainSpec, base: BaseModel, version: DatasetVersion, aside: DatasetVersion | None = None
) -> Outlook | None:
    """None for a base model of which too little is known, and for rows that are still being checked.

    `aside` has the rows that are measured on, where they are a dataset of their own.
    """
    if not version.is_ready:
        return None
    machine = Worker.objects.live().order_by("-memory_bytes").first()
    hardware = _hardware(machine, base)
    try:
        spec, rows = with_split_holdout(spec, version.splits, version.row_count)
        if aside and aside.is_ready:
            spec, rows = with_evaluation_rows(spec, rows, aside.row_count)
        counted = counted_in(version, base)
        found = estimate(
            spec,
            base.facts,
            rows=rows,
            tokens=round(counted.tokens * rows / max(1, version.row_count)),
            lengths=counted.lengths,
            on=hardware,
        )
    except (KeyError, TypeError, ValueError):  # facts of an unusual model
        return None
    found = calibrated(found, observed_peaks(spec, base, hardware.device))
    slow = machine is not None and hardware.device == "cpu" and spec.model.dtype == "float16"
    return Outlook(found, _slices(found, machine.memory_bytes if machine else 0), machine, slow)


@dataclass(frozen=True)
class Counted:
    """Tokens of a dataset on a base model: of all rows, and of the longest sequence of each of some rows.

    refused: how many of the `looked_at` first rows the base's chat template refuses, the first with this `problem`.
    """

    tokens: int
    lengths: tuple[int, ...] = ()
    refused: int = 0
    looked_at: int = 0
    problem: str = ""


def counted_in(version: DatasetVersion, base: BaseModel) -> Counted:
    """Tokens of a dataset as this base model counts them, from a sample of its rows. Remembered."""
    key = f"looked-at:{version.pk}:{base.pk}"
    known: dict[str, Any] | None = cache.get(key)
    if known is None:
        known = asdict(_count(version, base))
        cache.set(key, known, timeout=24 * 3600)
    return Counted(**known)


def _hardware(machine: Worker | None, base: BaseModel) -> Hardware:
    if machine is None:
        return Hardware("cpu", tokens_per_second=_speed(base))
    kind = "cpu" if machine.device.startswith("CPU") else "cuda"
    return Hardware(kind, machine.memory_bytes, _speed(base), cast(Dtype, machine.auto_dtype))


def refusal(version: DatasetVersion, base: BaseModel) -> str:
    """Why a training would fail at once: how many rows the base's chat template refuses, and the first problem."""
    if not version.is_ready:
        return ""
    counts = counts_of(version, base) or {}
    if "refused" in counts:
        refused, of, problem = counts["refused"], counts["sampled"], counts["problem"]
        which = "" if of == counts["rows"] else f"of {number_text(of)} looked at "
    else:
        counted = counted_in(version, base)
        refused, of, problem = counted.refused, counted.looked_at, counted.problem
        which = "" if of == version.row_count else f"of the first {number_text(of)} "
    rows = "1 row" if refused == 1 else f"{number_text(refused)} rows"
    return f"{rows} {which}cannot be trained on with this base model; the job would fail. {problem}" if refused else ""


def observed_peaks(spec: TrainSpec, base: BaseModel, device: str) -> list[ObservedPeak]:
    """What the newest jobs of this kind took: on this base and device, with the same method, quantised and
    checkpointed alike."""
    alike = {
        "job__spec__data__method": spec.data.method,
        "job__spec__model__quantization": spec.model.quantization,
        "job__spec__optim__gradient_checkpointing": spec.optim.gradient_checkpointing,
        "job__status": JobStatus.SUCCEEDED,
        "data__device": device,
    }
    told = JobEvent.objects.filter(kind="memory", job__base_model=base, **alike).order_by("-at", "-seq")
    newest: dict[UUID, ObservedPeak] = {}
    for event in told[: 4 * JOBS_LOOKED_AT]:  # each attempt tells it at its end, and on a GPU before its first step
        newest.setdefault(event.job_id, ObservedPeak(event.data["foretold_bytes"], event.data["peak_bytes"]))
    return list(newest.values())[:JOBS_LOOKED_AT]


def _count(version: DatasetVersion, base: BaseModel) -> Counted:
    rows = _first_rows(version)
    if not rows:
        typical = int(version.report.get("statistics", {}).get("characters", {}).get("p50", 0))
        return Counted(version.row_count * max(1, typical // CHARACTERS_PER_TOKEN))
    sizes = [_characters(row) for row in rows]
    read = _read_by(base, rows, sizes)
    a_character = read.tokens / read.characters if read.characters else 1 / CHARACTERS_PER_TOKEN
    longest = [size / max(1, len(row.conversations())) for row, size in zip(rows, sizes, strict=True)]
    lengths = tuple(max(1, round(size * a_character)) for size in longest)
    tokens = round(version.row_count * sum(sizes) / len(rows) * a_character)
    return Counted(tokens, lengths, read.refused, len(rows), read.problem)


def _first_rows(version: DatasetVersion) -> list[Row]:
    try:
        return read_rows(version.rows_path, 0, SAMPLE_ROWS)
    except (OSError, ValueError) as error:  # a form must not fail for an estimate
        logger.warning("rows of %s cannot be read: %s", version, error)
        return []


def _characters(row: Row) -> int:
    """Of all that goes through the model: a prompt with two answers counts twice."""
    return len(json.dumps([row.text or row.conversations(), row.tools], ensure_ascii=False))


@dataclass
class _Read:
    """Rows as a base reads them: characters and the tokens they are; how many it refuses, and why the first."""

    characters: int = 0
    tokens: int = 0
    refused: int = 0
    problem: str = ""


def _read_by(base: BaseModel, rows: list[Row], sizes: list[int]) -> _Read:
    """The first rows, as far as they are read in a moment: a row may have millions of characters."""
    read = _Read()
    try:
        renderer = Renderer.load(base.folder)
    except (TrainerError, OSError, ValueError, KeyError) as error:  # a base without a template
        logger.info("tokens on %s are guessed: %s", base, error)
        return read
    for row, size in zip(rows, sizes, strict=True):
        if read.characters + size > SAMPLE_CHARACTERS:
            continue
        try:
            read.tokens += _tokens(row, renderer)
            read.characters += size
        except TrainerError as error:
            read.refused += 1
            read.problem = read.problem or f"Line {row.line}: {error.text} {error.fix}"
    return read


def _tokens(row: Row, renderer: Renderer) -> int:
    if row.text is not None:
        return len(renderer.text_example(row.text).ids)
    return sum(len(renderer.example(one, tools=row.tools).ids) for one in row.conversations())


def _speed(base: BaseModel) -> float | None:
    """Tokens per second of plain steps, as the newest job on this base model told."""
    job = Job.objects.filter(base_model=base, status=JobStatus.SUCCEEDED).order_by("-ended_at").first()
    told = job and job.progress.get("tokens_per_second")
    return plain_speed(job.train_spec, told) if job and told else None


def _slices(found: Estimate, capacity: int) -> list[Slice]:
    whole = max(found.expected, capacity, 1)
    start, slices = 0.0, []
    for place, item in enumerate(found.items):
        width = 100 * item.expected / whole
        slices.append(Slice(item.name, item.expected, round(start, 2), round(width, 2), place))
        start += width
    return slices
