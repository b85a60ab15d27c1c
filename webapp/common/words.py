"""Values in the words people read: sizes, times, numbers, and what each state is called."""

from dataclasses import dataclass
from datetime import datetime, timedelta

NOTHING = "–"  # what a value that is not known looks like
MINUTE, HOUR, DAY = 60, 3_600, 86_400


def bytes_text(count: float | str | None) -> str:
    """A size with three digits at most: `512 B`, `4.2 kB`, `135 MB`. Decimal units, as on disks and downloads."""
    if count is None or count == "":  # a template's missing variable is empty text
        return NOTHING
    size = float(count)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 999.5 or unit == "TB":
            break
        size /= 1000
    digits = 1 if unit != "B" and size < 9.95 else 0
    return f"{size:,.{digits}f} {unit}"


def duration_text(length: float | str | timedelta | None) -> str:
    """How long, in the two units that matter: `0.4 s`, `45 s`, `2 min 10 s`, `3 h 5 min`, `2 d 4 h`."""
    if length is None or length == "":
        return NOTHING
    seconds = length.total_seconds() if isinstance(length, timedelta) else float(length)
    if 0 < seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = max(0, round(seconds))
    for size, unit, smaller, smaller_unit in (
        (DAY, "d", HOUR, "h"),
        (HOUR, "h", MINUTE, "min"),
        (MINUTE, "min", 1, "s"),
    ):
        if whole >= size:
            rest = whole % size // smaller
            return f"{whole // size} {unit}" + (f" {rest} {smaller_unit}" if rest else "")
    return f"{whole} s"


def ago_text(seconds: float) -> str:
    """How long ago, in one unit: `just now`, `5 min ago`, `3 h ago`, `12 d ago`."""
    if seconds < 0:
        return f"in {duration_text(-seconds)}"
    for size, unit in ((DAY, "d"), (HOUR, "h"), (MINUTE, "min")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit} ago"
    return "just now"


def exact_text(moment: datetime) -> str:
    return f"{moment.day} {moment:%B %Y, %H:%M} {moment.tzname() or ''}".strip()


def number_text(value: float | str | None, decimals: int | None = None) -> str:
    """Thousands separated; a fraction keeps three digits that count, or `decimals`."""
    if value is None or value == "":
        return NOTHING
    number = float(value)
    if decimals is not None:
        return f"{number:,.{decimals}f}"
    if number.is_integer():
        return f"{int(number):,}"
    size = abs(number)
    if size < 0.001:
        return f"{number:.2g}"
    return f"{number:,.{0 if size >= 100 else 1 if size >= 10 else 2 if size >= 1 else 3}f}"


@dataclass(frozen=True)
class State:
    """How a state is shown: the word, the icon, and the tone (good, warn, bad, busy or idle)."""

    word: str
    icon: str
    tone: str


STATES: dict[str, State] = {
    # jobs
    "queued": State("Queued", "clock", "idle"),
    "running": State("Running", "loader-circle", "busy"),
    "cancelling": State("Cancelling", "loader-circle", "warn"),
    "pausing": State("Pausing", "pause", "warn"),
    "paused": State("Paused", "pause", "warn"),
    "succeeded": State("Succeeded", "check", "good"),
    "failed": State("Failed", "x", "bad"),
    "cancelled": State("Cancelled", "ban", "idle"),
    # phases of a running attempt
    "loading": State("Loading", "loader-circle", "busy"),
    "preparing": State("Preparing", "loader-circle", "busy"),
    "training": State("Training", "loader-circle", "busy"),
    "evaluating": State("Evaluating", "loader-circle", "busy"),
    "saving": State("Saving", "loader-circle", "busy"),
    # outcomes of attempts
    "interrupted": State("Interrupted", "rotate-ccw", "warn"),
    "preempted": State("Preempted", "rotate-ccw", "warn"),
    "lost": State("Lost", "circle-alert", "warn"),
    # dataset versions
    "uploaded": State("Uploaded", "clock", "idle"),
    "inspecting": State("Inspecting", "loader-circle", "busy"),
    "ready": State("Ready", "check", "good"),
    "rejected": State("Rejected", "x", "bad"),
    # base models
    "fetching": State("Fetching", "loader-circle", "busy"),
    # completions
    "streaming": State("Answering", "loader-circle", "busy"),
    "finished": State("Finished", "check", "good"),
    "stopped": State("Stopped", "circle-stop", "idle"),
    # workers
    "online": State("Online", "check", "good"),
    "working": State("Working", "loader-circle", "busy"),
    "offline": State("Offline", "circle-dashed", "idle"),
    "missing": State("No sign of life", "triangle-alert", "warn"),
}


def state_of(name: str) -> State:
    """How a state is shown; one that is not in the list is shown by its own name."""
    return STATES.get(name) or State(name.replace("_", " ").capitalize() or NOTHING, "circle", "idle")
