"""What a training job is asked to do: one typed definition from which form, command line, YAML and API are derived."""

import dataclasses
import math
import re
from dataclasses import dataclass, field
from typing import Any, Literal, get_args, get_origin, get_type_hints

import yaml

SPEC_VERSION = 1

Quantization = Literal["none", "int8", "nf4"]
Dtype = Literal["auto", "bfloat16", "float16", "float32"]
TrainOn = Literal["answers", "everything"]
Schedule = Literal["constant", "linear", "cosine"]

TARGET_GROUPS = ("all-linear", "attention", "mlp")
MODULE_NAME = re.compile(r"[A-Za-z0-9_]+")


@dataclass(frozen=True)
class Option:
    """What stands beside a value: one sentence of meaning, its unit and its limits (both ends allowed)."""

    meaning: str
    unit: str = ""
    low: float | None = None
    high: float | None = None
    common: bool = False  # one of the values a person normally meets


def option(default: Any, meaning: str, **limits: Any) -> Any:
    """A dataclass field that carries its `Option`."""
    return field(default=default, metadata={"option": Option(meaning, **limits)})


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    base: str = option("", "Folder or hub id of the base model.")
    revision: str = option("", "Commit, tag or branch of a hub id; empty for a folder.")
    quantization: Quantization = option(
        "nf4",
        "How the frozen base is stored: nf4 takes a quarter of the memory, int8 half, none keeps full weights.",
        common=True,
    )
    dtype: Dtype = option("auto", "Number format of the computation; auto takes bfloat16 where the device has it.")


@dataclass(frozen=True, kw_only=True)
class LoraSpec:
    r: int = option(
        16, "Rank of the update: higher learns more detail and takes more memory.", low=1, high=512, common=True
    )
    lora_alpha: float = option(
        32.0, "Strength of the update: it is scaled by lora_alpha / r.", low=0.001, high=4096, common=True
    )
    lora_dropout: float = option(
        0.0, "Share of the update's inputs dropped while training; helps small datasets.", low=0, high=0.9, common=True
    )
    target_modules: str | tuple[str, ...] = option(
        "all-linear", "Layers that get an update: all-linear, attention, mlp, or names of modules.", common=True
    )
    use_rslora: bool = option(False, "Scale by lora_alpha / sqrt(r), so that high ranks keep learning.")


@dataclass(frozen=True, kw_only=True)
class DataSpec:
    path: str = option("", "File of rows: canonical Parquet, or any raw file that `python -m trainer check` accepts.")
    max_seq_length: int = option(512, "Longer examples are cut here.", unit="tokens", low=16, high=131072, common=True)
    train_on: TrainOn = option("answers", "Learn from the assistant's answers alone, or from every token.")
    holdout: float = option(
        0.05, "Share of rows kept aside to measure what was learnt; 0 for none.", low=0, high=0.5, common=True
    )


@dataclass(frozen=True, kw_only=True)
class OptimSpec:
    epochs: float = option(3.0, "Passes over the dataset.", unit="epochs", low=0.01, high=1000, common=True)
    max_steps: int = option(
        0, "Stop after this many optimizer steps; 0 for no limit.", unit="steps", low=0, high=10**7, common=True
    )
    batch_size: int = option(8, "Rows per optimizer step.", unit="rows", low=1, high=4096, common=True)
    micro_batch_tokens: int = option(
        0, "Tokens in one forward and backward pass; 0 lets the trainer choose.", unit="tokens", low=0, high=1 << 20
    )
    learning_rate: float = option(2e-4, "Size of one step; 1e-4 to 3e-4 suits LoRA.", low=1e-7, high=1.0, common=True)
    schedule: Schedule = option("cosine", "How the learning rate falls after warm-up.")
    warmup_ratio: float = option(0.03, "Share of steps in which the learning rate rises from zero.", low=0, high=0.5)
    weight_decay: float = option(0.0, "Pull of the update towards zero.", low=0, high=1)
    max_grad_norm: float = option(1.0, "Gradients are scaled down to this length; 0 leaves them.", low=0, high=1000)
    gradient_checkpointing: bool = option(False, "Recompute activations instead of keeping them: slower, less memory.")
    seed: int = option(42, "Fixes initial weights and the order of rows.", low=0, high=2**31 - 1)


@dataclass(frozen=True, kw_only=True)
class EvaluationSpec:
    every_steps: int = option(
        0, "Measure on the held-out rows every so many steps; 0 for once per epoch.", unit="steps", low=0, high=10**6
    )
    probes: tuple[str, ...] = option((), "Prompts answered at every evaluation, to see the change in words.")
    patience: int = option(
        0,
        "End after this many evaluations in a row without a lower loss on the held-out rows; 0 never ends early.",
        unit="evaluations",
        low=0,
        high=1000,
    )
    keep_best: bool = option(
        True, "Publish the weights with the lowest loss on the held-out rows, where later ones are worse."
    )


MAX_PROBES = 4
MAX_PROBE_LENGTH = 2000


@dataclass(frozen=True)
class Issue:
    """One problem of a spec: the field's path (`lora.r`), what is wrong, and what to do."""

    path: str
    problem: str
    fix: str

    def __str__(self) -> str:
        return f"{self.path}: {self.problem} {self.fix}"


class SpecError(ValueError):
    """A spec that cannot be read; carries every issue at once."""

    def __init__(self, issues: list[Issue]) -> None:
        super().__init__("\n".join(map(str, issues)))
        self.issues = issues


@dataclass(frozen=True, kw_only=True)
class TrainSpec:
    """All that decides a training run. Immutable; holds no secret and no word of any user interface."""

    version: int = SPEC_VERSION
    model: ModelSpec = field(default_factory=ModelSpec)
    lora: LoraSpec = field(default_factory=LoraSpec)
    data: DataSpec = field(default_factory=DataSpec)
    optim: OptimSpec = field(default_factory=OptimSpec)
    evaluation: EvaluationSpec = field(default_factory=EvaluationSpec)

    @classmethod
    def from_dict(cls, data: Any) -> "TrainSpec":
        """Build a spec from plain data. Raises SpecError with every unknown name and wrong type; limits: `issues()`."""
        problems: list[Issue] = []
        if not isinstance(data, dict):
            raise SpecError([Issue("", "A spec is a mapping of parts.", f"Use the parts {', '.join(PARTS)}.")])
        for name in data.keys() - PARTS.keys() - {"version"}:
            problems.append(Issue(str(name), "There is no such part.", f"The parts are {', '.join(PARTS)}."))
        if data.get("version", SPEC_VERSION) != SPEC_VERSION:
            problems.append(Issue("version", "Unknown version.", f"This trainer reads version {SPEC_VERSION}."))
        parts = {name: _read_part(name, part, data.get(name, {}), problems) for name, part in PARTS.items()}
        if problems:
            raise SpecError(sorted(problems, key=lambda issue: issue.path))
        return cls(**parts)

    def to_dict(self) -> dict[str, Any]:
        """Plain data that `from_dict` reads back to an equal spec."""
        return dataclasses.asdict(self)

    def to_yaml(self) -> str:
        data = self.to_dict()
        for part in PARTS:
            data[part] = {key: list(v) if isinstance(v, tuple) else v for key, v in data[part].items()}
        return yaml.safe_dump(data, sort_keys=False, allow_unicode=True)

    @classmethod
    def from_yaml(cls, text: str) -> "TrainSpec":
        """Read YAML (or JSON, which is YAML). Raises SpecError, also for text that is no YAML."""
        try:
            data = yaml.safe_load(text)
        except (yaml.YAMLError, RecursionError) as error:
            raise SpecError([Issue("", f"Not valid YAML: {error}.", "Check indentation and quotes.")]) from error
        return cls.from_dict(data)

    def issues(self) -> list[Issue]:
        """Every problem at once, each with the field's path and a fix. Empty when the spec can be tried."""
        found: list[Issue] = []
        for name, part in PARTS.items():
            for item in dataclasses.fields(part):
                path, value = f"{name}.{item.name}", getattr(getattr(self, name), item.name)
                words = choices_of(part, item.name)
                if words and value not in words:
                    found.append(Issue(path, f"{value!r:.80} is no choice here.", f"Choose one of {', '.join(words)}."))
                found += _limit_issues(path, value, option_of(item))
        return found + self._combination_issues()

    def _combination_issues(self) -> list[Issue]:
        found = _target_issues(self.lora.target_modules)
        if not self.model.base:
            found.append(Issue("model.base", "No base model is named.", "Name a folder or a hub id."))
        if not self.data.path:
            found.append(Issue("data.path", "No file of rows is named.", "Name a dataset file."))
        if 0 < self.optim.micro_batch_tokens < self.data.max_seq_length:
            found.append(
                Issue(
                    "optim.micro_batch_tokens",
                    f"An example may have {self.data.max_seq_length} tokens and must fit in one pass.",
                    f"Use 0, or at least {self.data.max_seq_length}.",
                )
            )
        if self.evaluation.patience and not self.data.holdout:
            found.append(
                Issue(
                    "evaluation.patience",
                    "Without held-out rows nobody can tell whether it gets better.",
                    "Hold rows out with data.holdout, or use 0.",
                )
            )
        if len(self.evaluation.probes) > MAX_PROBES:
            found.append(Issue("evaluation.probes", "Too many prompts.", f"Give at most {MAX_PROBES}."))
        if any(len(probe) > MAX_PROBE_LENGTH for probe in self.evaluation.probes):
            found.append(
                Issue("evaluation.probes", "A prompt is too long.", f"Keep each under {MAX_PROBE_LENGTH} characters.")
            )
        return found


PARTS: dict[str, type[Any]] = {
    "model": ModelSpec,
    "lora": LoraSpec,
    "data": DataSpec,
    "optim": OptimSpec,
    "evaluation": EvaluationSpec,
}


def option_of(item: "dataclasses.Field[Any]") -> Option:
    """The Option beside a field of one of the PARTS."""
    found: Option = item.metadata["option"]
    return found


def choices_of(part: type[Any], name: str) -> tuple[str, ...]:
    """The allowed words of a field, empty when any value of its type may stand there."""
    hint = get_type_hints(part)[name]
    return get_args(hint) if get_origin(hint) is Literal else ()


def _read_part(path: str, part: type[Any], data: Any, problems: list[Issue]) -> Any:
    if not isinstance(data, dict):
        problems.append(Issue(path, "This part is a mapping of values.", "Write name: value under it."))
        return part()
    hints = get_type_hints(part)
    names = ", ".join(hints)
    problems += [
        Issue(f"{path}.{key}", "There is no such value.", f"Known are {names}.") for key in data if key not in hints
    ]
    values = {}
    for name, hint in hints.items():
        if name in data:
            try:
                values[name] = _coerce(data[name], hint)
            except (ValueError, OverflowError) as error:
                problems.append(Issue(f"{path}.{name}", f"{data[name]!r:.80} is not usable here.", str(error)))
    return part(**values)


def _coerce(value: Any, hint: Any) -> Any:
    """`value` as the type of the field; ValueError's text is the fix. YAML reads 2e-4 as text: text may be a number."""
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise ValueError(f"Choose one of {', '.join(get_args(hint))}.")
        return value
    if hint is bool:
        return _coerce_bool(value)
    if hint in (int, float):
        return _coerce_number(value, hint)
    if hint is str:
        if not isinstance(value, str):
            raise ValueError("Write text.")
        return value
    if isinstance(value, str) and hint == str | tuple[str, ...]:
        return value
    if isinstance(value, (list, tuple)) and all(isinstance(one, str) for one in value):
        return tuple(value)
    raise ValueError("Write a list of texts.")


def _coerce_bool(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("Write true or false.")
    return value


def _coerce_number(value: Any, kind: type[int] | type[float]) -> int | float:
    wanted = "Write a whole number." if kind is int else "Write a number."
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError(wanted)
    try:
        number = float(value)
    except ValueError:
        raise ValueError(wanted) from None
    if not math.isfinite(number) or (kind is int and number != int(number)):
        raise ValueError(wanted)
    return kind(number)


def _limit_issues(path: str, value: Any, beside: Option) -> list[Issue]:
    if beside.low is not None and value < beside.low:
        return [Issue(path, f"{value} is too low.", f"Use at least {beside.low:g}.")]
    if beside.high is not None and value > beside.high:
        return [Issue(path, f"{value} is too high.", f"Use at most {beside.high:g}.")]
    return []


def _target_issues(targets: str | tuple[str, ...]) -> list[Issue]:
    if isinstance(targets, str):
        if targets in TARGET_GROUPS:
            return []
        return [
            Issue(
                "lora.target_modules",
                f"{targets!r:.80} is no group of layers.",
                f"Use {', '.join(TARGET_GROUPS)}, or a list of module names.",
            )
        ]
    bad = [name for name in targets if not MODULE_NAME.fullmatch(name)]
    if bad or not targets:
        named = f"{bad[0]!r:.80} is no module name." if bad else "The list is empty."
        return [Issue("lora.target_modules", named, "Use plain names such as q_proj, v_proj.")]
    return []
