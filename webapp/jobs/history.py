"""What a job's events say, as its page shows it: curves, log lines, probe completions."""

from dataclasses import dataclass, field
from typing import Any, TypedDict

from webapp.jobs.models import Job

MOST_POINTS = 1_000
LOG_LINES = 500
MUCH_FORGOTTEN = 10  # percent, from which on it is worth a piece of advice


class Chart(TypedDict):
    """Columns for the chart. Every list of a group has one value per step of the group."""

    steps: list[int]
    loss: list[float]
    learning_rate: list[float]
    grad_norm: list[float]
    eval_steps: list[int]
    eval_loss: list[float]


def chart(job: Job, scored: list[dict[str, Any]]) -> Chart:
    """At most MOST_POINTS points, and what was measured.

    What an interrupted attempt did beyond the checkpoint it resumed from is left out.
    """
    points = _without_repeats(_thinned(job))
    return {
        "steps": [point["step"] for point in points],
        "loss": [point["loss"] for point in points],
        "learning_rate": [point["learning_rate"] for point in points],
        "grad_norm": [point["grad_norm"] for point in points],
        "eval_steps": [point["step"] for point in scored],
        "eval_loss": [point["loss"] for point in scored],
    }


def evaluations(job: Job) -> list[dict[str, Any]]:
    """Measurements on held-out rows, by step."""
    return _without_repeats([event.data for event in job.events.filter(kind="evaluated")])


def all_steps(job: Job) -> list[dict[str, Any]]:
    """What each step reported, in order."""
    return _without_repeats([event.data for event in job.events.filter(kind="progress")])


def _thinned(job: Job) -> list[dict[str, Any]]:
    """Progress events, evenly thinned, always with the newest."""
    numbers = list(job.events.filter(kind="progress").values_list("seq", flat=True))
    stride = -(-len(numbers) // MOST_POINTS) or 1
    kept = numbers[::-1][::stride]
    return [event.data for event in job.events.filter(seq__in=kept)]


def _without_repeats(points: list[dict[str, Any]]) -> list[dict[str, Any]]:
    kept: list[dict[str, Any]] = []
    for point in points:
        while kept and kept[-1]["step"] >= point["step"]:
            kept.pop()
        kept.append(point)
    return kept


@dataclass(frozen=True)
class LogLine:
    attempt: int
    level: str
    text: str


def log_tail(job: Job, lines: int = LOG_LINES) -> list[LogLine]:
    """The last lines of the log, over all attempts."""
    newest = job.events.filter(kind="log").order_by("-seq")[:lines]
    told = [LogLine(one.attempt_number, one.data.get("level", "info"), one.data.get("text", "")) for one in newest]
    return told[::-1]


@dataclass
class Probe:
    """A prompt and what the model answered to it, by step."""

    prompt: str
    answers: list[tuple[int, str]] = field(default_factory=list)

    @property
    def before(self) -> tuple[int, str]:
        return self.answers[0]

    @property
    def after(self) -> tuple[int, str] | None:
        return self.answers[-1] if len(self.answers) > 1 else None

    @property
    def between(self) -> list[tuple[int, str]]:
        return self.answers[1:-1]


def probes(job: Job) -> list[Probe]:
    found: dict[str, Probe] = {}
    for event in job.events.filter(kind="sample"):
        probe = found.setdefault(event.data["prompt"], Probe(event.data["prompt"]))
        # After a resume the same step answers again; the newest word counts.
        probe.answers = [one for one in probe.answers if one[0] < event.data["step"]]
        probe.answers.append((event.data["step"], event.data["completion"]))
    return list(found.values())


@dataclass(frozen=True)
class Gain:
    """The loss on held-out rows, of the base model and of the result."""

    before: float
    after: float
    lowest: float  # of all measurements

    @property
    def percent(self) -> int:
        """How much lower the loss is. Not 100, which nothing reaches but a loss of zero."""
        return min(99, round(100 * (self.before - self.after) / self.before)) if self.before else 0

    @property
    def advice(self) -> str:
        """For a result that is worse than its base: it learnt for too long, or never in the right steps."""
        return (
            "fewer epochs may serve better" if self.lowest < self.before else "a lower learning rate may serve better"
        )


def published(job: Job, measured: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The measurements up to the step whose weights became the adapter; all of them while there is none."""
    step = job.adapter.metrics.get("published_step") if job.adapter else None
    return [one for one in measured if step is None or one["step"] <= step]


def gain(measured: list[dict[str, Any]]) -> Gain | None:
    """None when nothing was held out, or only one measurement was made."""
    if len(measured) < 2:
        return None
    return Gain(measured[0]["loss"], measured[-1]["loss"], min(one["loss"] for one in measured))


@dataclass(frozen=True)
class Forgotten:
    """How sure the model is of general text, before and now, and how far it is from its base there (nats a token)."""

    before: float
    after: float
    distance: float

    @property
    def percent(self) -> int:
        """How much higher the perplexity is; below zero where it is lower."""
        return round(100 * (self.after / self.before - 1))

    @property
    def is_much(self) -> bool:
        return self.percent >= MUCH_FORGOTTEN


def forgotten(measured: list[dict[str, Any]]) -> Forgotten | None:
    """None where it was not measured, or only once."""
    told = [one for one in measured if one.get("general_kl") is not None]
    if len(told) < 2:
        return None
    return Forgotten(told[0]["general_perplexity"], told[-1]["general_perplexity"], told[-1]["general_kl"])
