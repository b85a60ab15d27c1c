"""Histograms as the pages draw them: bars in an SVG, made on the server."""

from dataclasses import dataclass
from typing import Any

from webapp.common.words import number_text

WIDTH, HEIGHT = 480, 96
GAP = 2


@dataclass(frozen=True)
class Bar:
    """One bar; `over`: all of it is beyond the limit."""

    x: float
    y: float
    width: float
    height: float
    label: str
    over: bool


@dataclass(frozen=True)
class Histogram:
    """How often which number is; `limit_at` is where a limit's line stands, None without one."""

    name: str
    bars: list[Bar]
    first: str
    last: str
    told: str
    limit_at: float | None = None

    @property
    def box(self) -> str:
        return f"0 0 {WIDTH} {HEIGHT}"


def histogram(name: str, unit: str, spread: dict[str, Any], *, limit: int | None = None) -> Histogram | None:
    """None where there is nothing to compare: no rows, or all of one height."""
    bars = spread["bars"]
    if sum(bar["rows"] > 0 for bar in bars) < 2:
        return None
    most = max(bar["rows"] for bar in bars)
    step = WIDTH / len(bars)
    shown = [_bar(at, bar, most, step, unit, limit) for at, bar in enumerate(bars)]
    told = (
        f"Half have at most {number_text(spread['p50'])}, 95 % at most {number_text(spread['p95'])}, "
        f"the longest {number_text(spread['max'])}."
    )
    limit_at = _limit_at(bars, step, limit) if limit is not None else None
    return Histogram(name, shown, number_text(bars[0]["from"]), number_text(bars[-1]["to"]), told, limit_at)


def _bar(at: int, bar: dict[str, int], most: int, step: float, unit: str, limit: int | None) -> Bar:
    height = max(1.5, (HEIGHT - 2) * bar["rows"] / most) if bar["rows"] else 0.0
    span = number_text(bar["from"]) + (f" to {number_text(bar['to'])}" if bar["to"] > bar["from"] else "")
    label = f"{span} {unit}: {number_text(bar['rows'])} row{'' if bar['rows'] == 1 else 's'}"
    over = limit is not None and bar["from"] >= limit
    return Bar(round(at * step, 2), round(HEIGHT - height, 2), round(step - GAP, 2), round(height, 2), label, over)


def _limit_at(bars: list[dict[str, int]], step: float, limit: int) -> float | None:
    width = bars[0]["to"] - bars[0]["from"] + 1
    place = limit / width * step
    return round(place, 2) if place < WIDTH else None
