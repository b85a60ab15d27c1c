"""The trainer's events: typed, written to stdout as JSON lines (or as text on a terminal), read by the supervisor."""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar, Literal

HEARTBEAT_SECONDS = 60.0
PhaseName = Literal["loading", "preparing", "training", "evaluating", "saving"]


@dataclass(frozen=True, kw_only=True)
class Phase:
    """The attempt entered a phase."""

    kind: ClassVar[str] = "phase"
    name: PhaseName


@dataclass(frozen=True, kw_only=True)
class Progress:
    """One optimizer step was completed.

    loss: mean over the step's trained tokens; for DPO and KTO over its rows.
    accuracy: share of these tokens that are the model's top-1 prediction; for DPO and KTO the share of rows with a
    positive reward margin. Older trainers do not report it.
    trained_tokens: total over all attempts.
    tokens_per_second: over a moving window of steps, without padding.
    seconds_left: from the same window and the duration of the latest evaluation.
    """

    kind: ClassVar[str] = "progress"
    step: int
    of: int
    loss: float
    learning_rate: float
    grad_norm: float
    trained_tokens: int
    tokens_per_second: float
    seconds_left: float
    memory_bytes: int
    accuracy: float | None = None


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """The held-out rows were evaluated; step 0 is the base model.

    accuracy: share of trained tokens that are the model's top-1 prediction; for DPO and KTO the share of rows with a
    positive reward margin.
    perplexity: not for DPO and KTO. margin: the mean reward margin, for DPO and KTO.
    general_kl, general_perplexity: on general text, if measured: KL(base ‖ model) in nats per token, and the model's
    perplexity.
    """

    kind: ClassVar[str] = "evaluated"
    step: int
    loss: float
    accuracy: float
    rows: int
    perplexity: float | None = None
    margin: float | None = None
    general_kl: float | None = None
    general_perplexity: float | None = None


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A probe prompt's greedy completion at a step."""

    kind: ClassVar[str] = "sample"
    step: int
    prompt: str
    completion: str


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A verified checkpoint was written to `folder`, a path below the attempt's folder."""

    kind: ClassVar[str] = "checkpoint"
    step: int
    folder: str


@dataclass(frozen=True, kw_only=True)
class Memory:
    """The attempt's memory peak so far, and the estimate for it. `device`: cpu or cuda."""

    kind: ClassVar[str] = "memory"
    step: int
    peak_bytes: int
    foretold_bytes: int
    device: str


@dataclass(frozen=True, kw_only=True)
class Log:
    """A human-readable log line."""

    kind: ClassVar[str] = "log"
    text: str
    level: Literal["info", "warning", "error"] = "info"


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """Download progress: `done` of `of` bytes (0 if the total is unknown) of `what`."""

    kind: ClassVar[str] = "fetched"
    done: int
    of: int
    what: str


@dataclass(frozen=True, kw_only=True)
class RowsRead:
    """Progress of checking a file: rows so far, and `done` of `of` bytes (0 if unknown)."""

    kind: ClassVar[str] = "rows_read"
    rows: int
    done: int = 0
    of: int = 0


@dataclass(frozen=True, kw_only=True)
class Finished:
    """The work is done. `folder` has the verified result (for training, the adapter), `facts` describe it."""

    kind: ClassVar[str] = "finished"
    folder: str
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Failed:
    """The work failed. `code` is one of `errors.FAILURE_CODES`."""

    kind: ClassVar[str] = "failed"
    code: str
    text: str
    fix: str = ""


Event = Phase | Progress | Evaluated | Sample | Checkpoint | Memory | Log | Fetched | RowsRead | Finished | Failed
Emit = Callable[[Event], None]

EVENT_TYPES: dict[str, type[Event]] = {
    cls.kind: cls
    for cls in (Phase, Progress, Evaluated, Sample, Checkpoint, Memory, Log, Fetched, RowsRead, Finished, Failed)
}


class Heartbeat:
    """Logs what is being done if nothing was reported for a minute: people take silence for a hang."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self.reset()

    def __call__(self, doing: str) -> None:
        if time.monotonic() - self._last > HEARTBEAT_SECONDS:
            self._emit(Log(text=doing))
            self.reset()

    def reset(self) -> None:
        """Something else was reported."""
        self._last = time.monotonic()


def counted(number: int, one: str, many: str) -> str:
    """A number with its noun: 1 row, 2 rows."""
    return f"{number:,} {one if number == 1 else many}"


def encode(number: int, event: Event) -> str:
    """The event as one line of JSON. Raises ValueError for NaN and infinity, which JSON cannot represent."""
    return json.dumps({"n": number, "kind": event.kind, **asdict(event)}, allow_nan=False, ensure_ascii=False)


def decode(line: str) -> tuple[int, Event]:
    """Read back what `encode` wrote. Raises ValueError for anything else; unknown fields are ignored."""
    data = json.loads(line)
    if not isinstance(data, dict) or data.get("kind") not in EVENT_TYPES or not isinstance(data.get("n"), int):
        raise ValueError(f"not a trainer event: {line[:200]!r}")
    cls = EVENT_TYPES[data["kind"]]
    known = {f.name for f in fields(cls)}
    try:
        return data["n"], cls(**{key: value for key, value in data.items() if key in known})
    except TypeError as error:
        raise ValueError(f"incomplete {data['kind']} event: {error}") from error
