"""What a trainer reports: typed events, written as one JSON object a line on stdout and read back by the supervisor."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar, Literal

PhaseName = Literal["loading", "preparing", "training", "evaluating", "saving"]


@dataclass(frozen=True, kw_only=True)
class Phase:
    """The attempt entered a phase."""

    kind: ClassVar[str] = "phase"
    name: PhaseName


@dataclass(frozen=True, kw_only=True)
class Progress:
    """One optimizer step was made.

    `loss` is the mean over the step's trained tokens, `accuracy` the share of them that the model would have chosen
    itself; where answers are compared, both are over its rows, and those count as right whose rewards are on the right
    side. An older trainer tells no accuracy. `trained_tokens` the total so far over all attempts,
    `tokens_per_second` counts real (not padded) tokens over a moving window, `seconds_left` comes from the same window
    and from how long the newest evaluation took.
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
    """The held-out rows were scored; at step 0 this is the base model. `accuracy` is over trained tokens.

    Where answers are compared there is no perplexity: `accuracy` is the share of rows told right, and `margin` how far
    their rewards are on the right side, on average.

    On general text, where that is measured: `general_kl` is how far the model is from its base, in nats per token, and
    `general_perplexity` its own.
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
    """A verified, resumable state lies in `folder` (a name below the attempt's own folder)."""

    kind: ClassVar[str] = "checkpoint"
    step: int
    folder: str


@dataclass(frozen=True, kw_only=True)
class Memory:
    """The most memory that this attempt held so far, and what was foretold for it. `device`: cpu or cuda."""

    kind: ClassVar[str] = "memory"
    step: int
    peak_bytes: int
    foretold_bytes: int
    device: str


@dataclass(frozen=True, kw_only=True)
class Log:
    """A line for people."""

    kind: ClassVar[str] = "log"
    text: str
    level: Literal["info", "warning", "error"] = "info"


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """Bytes of a base model are here: how many of how many (0 when the total is unknown), and of what."""

    kind: ClassVar[str] = "fetched"
    done: int
    of: int
    what: str


@dataclass(frozen=True, kw_only=True)
class RowsRead:
    """So many rows of a file are checked; and `done` of how many bytes, 0 where that is not known."""

    kind: ClassVar[str] = "rows_read"
    rows: int
    done: int = 0
    of: int = 0


@dataclass(frozen=True, kw_only=True)
class Finished:
    """The work is done; `folder` holds the verified result (the adapter, for training), `facts` what to keep of it."""

    kind: ClassVar[str] = "finished"
    folder: str
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Failed:
    """The work failed for a reason with a name; `code` is one of `errors.FAILURE_CODES`."""

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


def counted(number: int, one: str, many: str) -> str:
    """A number and what it counts, in a sentence for people: 1 row, 2 rows."""
    return f"{number:,} {one if number == 1 else many}"


def encode(number: int, event: Event) -> str:
    """The event as one line of JSON. A NaN or an infinity is an error here: JSON has no word for it."""
    return json.dumps({"n": number, "kind": event.kind, **asdict(event)}, allow_nan=False, ensure_ascii=False)


def decode(line: str) -> tuple[int, Event]:
    """Read back what `encode` wrote. Raises ValueError for anything else; fields of a newer trainer are passed over."""
    data = json.loads(line)
    if not isinstance(data, dict) or data.get("kind") not in EVENT_TYPES or not isinstance(data.get("n"), int):
        raise ValueError(f"not a trainer event: {line[:200]!r}")
    cls = EVENT_TYPES[data["kind"]]
    known = {f.name for f in fields(cls)}
    try:
        return data["n"], cls(**{key: value for key, value in data.items() if key in known})
    except TypeError as error:
        raise ValueError(f"incomplete {data['kind']} event: {error}") from error
