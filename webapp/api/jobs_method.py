"""Methods and hyper-parameters as the wire has them, and the values of a spec that they stand for."""

from dataclasses import dataclass, field
from typing import Any, NoReturn

from trainer.spec import OptimSpec, TrainSpec
from webapp.api.fields import Fields, bad

METHODS = {"supervised": "sft", "dpo": "dpo", "kto": "kto"}
WIRE_METHODS = {method: name for name, method in METHODS.items()}
DEFAULT_RATE = OptimSpec().learning_rate  # what a learning_rate_multiplier of 1 stands for
AUTO = "auto"
SHARED = {"n_epochs": ("optim", "epochs"), "batch_size": ("optim", "batch_size")}
BETA = {"beta": ("preference", "beta")}
RATE = "learning_rate_multiplier"


@dataclass
class Chosen:
    """Values by part; `said`: which field of the request each came from, by its path in the spec."""

    values: dict[str, dict[str, Any]] = field(default_factory=dict)
    said: dict[str, str] = field(default_factory=dict)

    def choose(self, part: str, name: str, value: Any, said: str) -> None:
        """Raises ApiError where another field of the request says something else."""
        earlier = self.said.get(f"{part}.{name}")
        if earlier and self.values[part][name] != value:
            refuse_both(said, earlier)
        self.values.setdefault(part, {})[name] = value
        self.said[f"{part}.{name}"] = said


def refuse_both(param: str, other: str) -> NoReturn:
    bad(param, f"`{param}` says something else than `{other}`. Give one of them.")


def read_method(body: Fields) -> Chosen:
    """`method`, or the older `hyperparameters` beside it; what is `auto` or missing is not chosen."""
    chosen, method = Chosen(), body.inside("method")
    kind = "supervised"
    if body.has("method"):
        kind = method.text("type", most=64)
        if kind == "reinforcement":
            method.bad("type", "reinforcement needs graders, which are not offered here; use supervised, dpo or kto")
        kind = method.choice("type", METHODS)
        chosen.choose("data", "method", METHODS[kind], method.path("type"))
    for name in method.values:
        if name not in ("type", kind) and method.has(name):
            method.bad(name, f"does not belong to the type {kind}")
    inner = method.inside(kind)
    inner.only("hyperparameters")
    _read_values(body.inside("hyperparameters"), kind, chosen)
    _read_values(inner.inside("hyperparameters"), kind, chosen)
    return chosen


def _read_values(given: Fields, kind: str, chosen: Chosen) -> None:
    known = SHARED | (BETA if kind != "supervised" else {})
    given.only(*known, RATE, hint=f"Known are {', '.join((*known, RATE))}.")
    for name, (part, value) in known.items():
        if given.has(name) and given.values[name] != AUTO:
            chosen.choose(part, value, _number(given, name), given.path(name))
    if given.has(RATE) and given.values[RATE] != AUTO:
        factor = given.number(RATE, lowest=1e-3, highest=1e3)
        chosen.choose("optim", "learning_rate", factor * DEFAULT_RATE, given.path(RATE))


def _number(given: Fields, name: str) -> int | float:
    """The spec knows the limits."""
    value = given.values[name]
    if isinstance(value, bool) or not isinstance(value, int | float):
        given.bad(name, 'must be a number or "auto"')
    return value


def method_of(spec: TrainSpec) -> str:
    return WIRE_METHODS[spec.data.method]


def hyperparameters_of(spec: TrainSpec) -> dict[str, Any]:
    """The numbers that `auto` became, or that were asked for."""
    return {
        "n_epochs": plain(spec.optim.epochs),
        "batch_size": spec.optim.batch_size,
        RATE: plain(float(f"{spec.optim.learning_rate / DEFAULT_RATE:.6g}")),
    }


def described(spec: TrainSpec) -> dict[str, Any]:
    """The wire's `method`."""
    kind, found = method_of(spec), hyperparameters_of(spec)
    if kind != "supervised":
        found["beta"] = spec.preference.beta
    return {"type": kind, kind: {"hyperparameters": found}}


def plain(number: float) -> int | float:
    return int(number) if float(number).is_integer() else number
