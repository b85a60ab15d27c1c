"""What a job will take, shown before it is queued: the trainer's estimate for this base, these rows, these machines."""

import dataclasses
import json
import logging
from dataclasses import dataclass

from django.core.cache import cache

from trainer.errors import TrainerError
from trainer.estimate import Estimate, Place, estimate
from trainer.formats import Row, read_rows
from trainer.rendering import Renderer
from trainer.spec import TrainSpec
from webapp.adapters.models import BaseModel
from webapp.datasets.models import DatasetVersion
from webapp.jobs.models import Job, JobStatus, Worker

logger = logging.getLogger(__name__)

SAMPLE_ROWS = 64
SAMPLE_CHARACTERS = 1_000_000  # tokenised in about a second
CHARACTERS_PER_TOKEN = 4
TIGHT = 0.6  # of the machine's memory


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
        return not self.capacity or self.estimate.expected <= self.capacity

    @property
    def is_tight(self) -> bool:
        """Whether to say what would lower it: the upper end of the estimate comes near what there is."""
        return self.estimate.high > TIGHT * self.capacity


def outlook(spec: TrainSpec, base: BaseModel, version: DatasetVersion) -> Outlook | None:
    """None for a base model of which too little is known, and for rows that are still being checked."""
    if not version.is_ready:
        return None
    machine = Worker.objects.live().order_by("-memory_bytes").first()
    on_cpu = machine is None or machine.device.startswith("CPU")
    try:
        spec, rows = _as_divided(spec, version)
        found = estimate(
            spec,
            base.facts,
            rows=rows,
            tokens=round(tokens_in(version, base) * rows / max(1, version.row_count)),
            tokens_per_second=_speed(base),
            on=Place("cpu" if on_cpu else "cuda", machine.memory_bytes if machine else 0),
        )
    except (KeyError, TypeError, ValueError):  # facts of an unusual model
        return None
    slow = machine is not None and on_cpu and spec.model.dtype == "float16"
    return Outlook(found, _slices(found, machine.memory_bytes if machine else 0), machine, slow)


def _as_divided(spec: TrainSpec, version: DatasetVersion) -> tuple[TrainSpec, int]:
    """The spec with the share that the version's own split has, and the rows that the job will read."""
    measured = version.splits.get(spec.data.split, 0)
    if not measured:
        return spec, version.row_count
    apart = sum(rows for name, rows in version.splits.items() if name not in ("train", spec.data.split))
    rows = version.row_count - apart
    return dataclasses.replace(spec, data=dataclasses.replace(spec.data, holdout=measured / rows)), rows


def tokens_in(version: DatasetVersion, base: BaseModel) -> int:
    """Tokens of a dataset as this base model counts them, from a sample of its rows. Remembered."""
    key = f"tokens:{version.pk}:{base.pk}"
    known: int | None = cache.get(key)
    if known is None:
        known = _count(version, base)
        cache.set(key, known, timeout=24 * 3600)
    return known


def _count(version: DatasetVersion, base: BaseModel) -> int:
    rows = _first_rows(version)
    if not rows:
        typical = int(version.report.get("statistics", {}).get("characters", {}).get("p50", 0))
        return version.row_count * max(1, typical // CHARACTERS_PER_TOKEN)
    sizes = [_characters(row) for row in rows]
    return round(version.row_count * sum(sizes) / len(rows) * _tokens_per_character(rows, sizes, base))


def _first_rows(version: DatasetVersion) -> list[Row]:
    try:
        return read_rows(version.rows_path, 0, SAMPLE_ROWS)
    except (OSError, ValueError) as error:  # a form must not fail for an estimate
        logger.warning("rows of %s cannot be read: %s", version, error)
        return []


def _characters(row: Row) -> int:
    """Of all that goes through the model: a prompt with two answers counts twice."""
    return len(json.dumps([row.text or row.conversations(), row.tools], ensure_ascii=False))


def _tokens_per_character(rows: list[Row], sizes: list[int], base: BaseModel) -> float:
    """Of the first rows, as far as they are read in a moment: a row may have millions of characters."""
    read = tokens = 0
    try:
        renderer = Renderer.load(base.folder)
        for row, size in zip(rows, sizes, strict=True):
            if read + size <= SAMPLE_CHARACTERS:
                tokens += _tokens(row, renderer)
                read += size
    except (TrainerError, OSError, ValueError, KeyError) as error:  # a base without a template, rows it cannot show
        logger.info("tokens on %s are guessed: %s", base, error)
        return 1 / CHARACTERS_PER_TOKEN
    return tokens / read if read else 1 / CHARACTERS_PER_TOKEN


def _tokens(row: Row, renderer: Renderer) -> int:
    if row.text is not None:
        return len(renderer.text_example(row.text).ids)
    return sum(len(renderer.example(one, tools=row.tools).ids) for one in row.conversations())


def _speed(base: BaseModel) -> float | None:
    """Tokens per second of the newest job on this base model that told any."""
    told = Job.objects.filter(base_model=base, status=JobStatus.SUCCEEDED).order_by("-ended_at")[:1]
    return next((job.progress.get("tokens_per_second") for job in told), None)


def _slices(found: Estimate, capacity: int) -> list[Slice]:
    whole = max(found.expected, capacity, 1)
    start, slices = 0.0, []
    for place, item in enumerate(found.items):
        width = 100 * item.expected / whole
        slices.append(Slice(item.name, item.expected, round(start, 2), round(width, 2), place))
        start += width
    return slices
