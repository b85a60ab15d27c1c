"""The spec of a training job: one typed definition, from which form, command line, YAML and API are derived."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal, get_args, get_origin, get_type_hints

import yaml

from trainer.lora_spec import TARGET_GROUPS, LoraSpec
from trainer.method_spec import Method, PreferenceSpec, kind_issues
from trainer.spec_values import Issue, Option, coerce, did_you_mean, limit_issues, option, plain, shown

__all__ = [
    "PARTS",
    "TARGET_GROUPS",
    "DataSpec",
    "EvaluationSpec",
    "Issue",
    "LoraSpec",
    "ModelSpec",
    "OptimSpec",
    "Option",
    "PreferenceSpec",
    "SpecError",
    "TrainSpec",
    "choices_of",
    "kind_issues",
    "option_of",
]

SPEC_VERSION = 1

Quantization = Literal["none", "int8", "nf4"]
Dtype = Literal["auto", "bfloat16", "float16", "float32"]
TrainOn = Literal["answers", "everything"]
Shard = Literal["auto", "never", "always"]
Schedule = Literal["constant", "linear", "cosine"]
Optimizer = Literal["adamw", "adamw_8bit", "paged_adamw", "paged_adamw_8bit"]


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    base: str = option("", "Folder or hub id of the base model.")
    revision: str = option("", "Commit, tag or branch of a hub id; empty for a folder.")
    quantization: Quantization = option(
        "nf4",
        "How the frozen base is stored: nf4 takes a quarter of the memory, int8 half, none keeps full weights.",
        common=True,
    )
    dtype: Dtype = option("auto", "Number format of the computation; auto is bfloat16 where the device supports it.")
    gpus: int = option(
        1, "GPUs for data-parallel training, each with its share of the rows of a step.", unit="GPUs", low=1, high=64
    )
    shard: Shard = option(
        "auto", "Whether to shard the frozen base across the GPUs (FSDP); auto shards it if one GPU cannot hold it."
    )


@dataclass(frozen=True, kw_only=True)
class DataSpec:
    path: str = option("", "File of rows: canonical Parquet, or any raw file that `python -m trainer check` accepts.")
    method: Method = option(
        "sft",
        "sft trains on answers or text, dpo on chosen and rejected answers, kto on answers labelled good or bad.",
        common=True,
    )
    max_seq_length: int = option(512, "Longer examples are truncated.", unit="tokens", low=16, high=131072, common=True)
    train_on: TrainOn = option("answers", "Train on the assistant's answers only, or on every token.")
    holdout: float = option(0.05, "Share of rows held out for evaluation; 0 for none.", low=0, high=0.5, common=True)
    split: str = option(
        "test", "Named split held out for evaluation, instead of a share of the rows; empty to ignore splits."
    )
    holdout_path: str = option("", "File of evaluation rows, instead of a share of the rows; empty for none.")


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
    learning_rate: float = option(
        2e-4, "Peak learning rate; 1e-4 to 3e-4 suits LoRA, 1e-3 a short run.", low=1e-7, high=1.0, common=True
    )
    optimizer: Optimizer = option(
        "adamw",
        "adamw suits LoRA; the 8-bit and paged ones of bitsandbytes save memory when whole modules are trained, too.",
    )
    schedule: Schedule = option("cosine", "How the learning rate falls after warm-up.")
    warmup_ratio: float = option(0.03, "Share of steps in which the learning rate warms up from zero.", low=0, high=0.5)
    weight_decay: float = option(0.0, "Weight decay of the LoRA matrices.", low=0, high=1)
    max_grad_norm: float = option(1.0, "Gradients are clipped to this norm; 0 for no clipping.", low=0, high=1000)
    loraplus_lr_ratio: float = option(
        0.0, "Learning rate of B matrices and vectors relative to A (LoRA+); 0 or 1 for equal.", low=0, high=1000
    )
    neftune_noise_alpha: float = option(
        0.0, "Noise on the embeddings while training (NEFTune), such as 5; 0 for none.", low=0, high=100
    )
    gradient_checkpointing: bool = option(
        False, "Recompute the activations of every layer; if off, only of as many as memory requires."
    )
    seed: int = option(42, "Fixes initial weights and the order of rows.", low=0, high=2**31 - 1)


@dataclass(frozen=True, kw_only=True)
class EvaluationSpec:
    every_steps: int = option(
        0, "Evaluate on the held-out rows every so many steps; 0 for once per epoch.", unit="steps", low=0, high=10**6
    )
    probes: tuple[str, ...] = option((), "Prompts answered at every evaluation, to follow how the answers change.")
    patience: int = option(
        0,
        "Stop after this many evaluations in a row without a lower loss on the held-out rows; 0 never stops early.",
        unit="evaluations",
        low=0,
        high=1000,
    )
    keep_best: bool = option(
        True, "Publish the weights with the lowest loss on the held-out rows, instead of the last ones."
    )
    forgetting: bool = option(
        True, "Measure at every evaluation how far the model has diverged from its base on general text."
    )


# Names that people and other tools use for values of a spec, for hints.
FIELD_ALIASES = {
    **dict.fromkeys(("base_model", "model_name", "model_name_or_path", "model_id", "name_or_path"), "model.base"),
    **dict.fromkeys(("load_in_4bit", "use_4bit", "qlora"), "model.quantization: nf4"),
    **dict.fromkeys(("load_in_8bit", "use_8bit"), "model.quantization: int8"),
    **dict.fromkeys(("quantize", "quantise", "quantisation", "quant", "bits"), "model.quantization"),
    **dict.fromkeys(("precision", "mixed_precision", "torch_dtype", "compute_dtype"), "model.dtype"),
    "bf16": "model.dtype: bfloat16",
    "fp16": "model.dtype: float16",
    **dict.fromkeys(("num_gpus", "n_gpus", "devices", "nproc_per_node"), "model.gpus"),
    **dict.fromkeys(("rank", "lora_r", "lora_rank"), "lora.r"),
    **dict.fromkeys(("alpha", "scaling"), "lora.lora_alpha"),
    "dropout": "lora.lora_dropout",
    **dict.fromkeys(("target_module", "targets", "lora_target", "lora_target_modules"), "lora.target_modules"),
    **dict.fromkeys(("init", "init_weights"), "lora.init_lora_weights"),
    **dict.fromkeys(("dataset", "train_file", "file", "dataset_path", "data_path"), "data.path"),
    **dict.fromkeys(("max_length", "max_len", "seq_len", "seq_length", "cutoff_len"), "data.max_seq_length"),
    **dict.fromkeys(("sequence_len", "sequence_length", "context_length"), "data.max_seq_length"),
    **dict.fromkeys(("val_set_size", "val_size", "test_size", "validation_split"), "data.holdout"),
    **dict.fromkeys(("epoch", "num_epochs", "num_train_epochs", "n_epochs"), "optim.epochs"),
    **dict.fromkeys(("steps", "num_steps", "total_steps"), "optim.max_steps"),
    **dict.fromkeys(("batch", "bs", "train_batch_size", "per_device_train_batch_size"), "optim.batch_size"),
    **dict.fromkeys(("gradient_accumulation_steps", "grad_accum", "grad_accumulation"), "optim.batch_size"),
    **dict.fromkeys(("micro_batch", "micro_batch_size"), "optim.micro_batch_tokens"),
    "lr": "optim.learning_rate",
    **dict.fromkeys(("lr_scheduler", "lr_scheduler_type", "scheduler", "lr_schedule"), "optim.schedule"),
    **dict.fromkeys(("warmup", "warmup_steps", "num_warmup_steps"), "optim.warmup_ratio"),
    **dict.fromkeys(("grad_clip", "clip_grad", "gradient_clipping", "max_norm"), "optim.max_grad_norm"),
    "neftune": "optim.neftune_noise_alpha",
    **dict.fromkeys(("eval_steps", "eval_every", "evaluation_steps"), "evaluation.every_steps"),
    **dict.fromkeys(("early_stopping", "early_stopping_patience"), "evaluation.patience"),
    "load_best_model_at_end": "evaluation.keep_best",
}
MAX_PROBES = 4
MAX_PROBE_LENGTH = 2000


class SpecError(ValueError):
    """A spec that cannot be read, with all its issues.

    `spec`: what could be read, with defaults for the rest; None if nothing could.
    """

    def __init__(self, issues: list[Issue], spec: "TrainSpec | None" = None) -> None:
        super().__init__("\n".join(map(str, issues)))
        self.issues = issues
        self.spec = spec


@dataclass(frozen=True, kw_only=True)
class TrainSpec:
    """Everything that determines a training run. Immutable; free of secrets and user interface texts."""

    version: int = SPEC_VERSION
    model: ModelSpec = field(default_factory=ModelSpec)
    lora: LoraSpec = field(default_factory=LoraSpec)
    data: DataSpec = field(default_factory=DataSpec)
    optim: OptimSpec = field(default_factory=OptimSpec)
    preference: PreferenceSpec = field(default_factory=PreferenceSpec)
    evaluation: EvaluationSpec = field(default_factory=EvaluationSpec)

    @classmethod
    def from_dict(cls, data: Any) -> "TrainSpec":
        """Build a spec from plain data. Raises SpecError with everything unreadable and all other issues."""
        problems: list[Issue] = []
        if not isinstance(data, dict):
            raise SpecError([Issue("", "A spec is a mapping of parts.", f"Use the parts {', '.join(PARTS)}.")])
        for name in data.keys() - PARTS.keys() - {"version"}:
            fix = f"{_known_place(name) or did_you_mean([name], PARTS)}The parts are {', '.join(PARTS)}."
            problems.append(Issue(str(name), "There is no such part.", fix))
        if data.get("version", SPEC_VERSION) != SPEC_VERSION:
            problems.append(Issue("version", "Unknown version.", f"This trainer reads version {SPEC_VERSION}."))
        parts = {name: _read_part(name, part, data.get(name), problems) for name, part in PARTS.items()}
        spec = cls(**parts)
        if problems:  # report the issues of the readable values, too, so that one round of fixes is enough
            unread = {one.path for one in problems}
            others = [one for one in spec.issues() if not unread & _paths_of(one)]
            raise SpecError(sorted(problems + others, key=lambda issue: issue.path), spec)
        return spec

    def to_dict(self) -> dict[str, Any]:
        """Plain data from which `from_dict` restores an equal spec."""
        return dataclasses.asdict(self)

    def to_yaml(self) -> str:
        data = self.to_dict()
        for part in PARTS:
            data[part] = {key: plain(value) for key, value in data[part].items()}
        return yaml.safe_dump(data, sort_keys=False, allow_unicode=True)

    @classmethod
    def from_yaml(cls, text: str, *, name: str = "") -> "TrainSpec":
        """Read YAML (or JSON, which is YAML). Raises SpecError, also for invalid YAML. `name`: of the file."""
        try:
            data = _StrictLoader.read(text)
        except (yaml.YAMLError, RecursionError) as error:
            problem = f"Not valid YAML: {', '.join(filter(None, (name, _yaml_problem(error))))}."
            raise SpecError([Issue("", problem, "Check indentation, brackets and quotes.")]) from error
        return cls.from_dict(data)

    def issues(self) -> list[Issue]:
        """All problems, each with the field's path and a fix. Empty if the spec is valid."""
        return self._value_issues() + self._combination_issues()

    def issues_on(self, task: str, longest: int | None = None) -> list[Issue]:
        """Problems on a base model of this task and context length (see `trainer.base_facts`)."""
        found: list[Issue] = []
        if longest and self.data.max_seq_length > longest:
            text = f"The base model reads at most {longest} tokens, and this is {self.data.max_seq_length}."
            found.append(Issue("data.max_seq_length", text, f"Use at most {longest}."))
        if task != "seq2seq":
            return found
        found += self.lora.issues_on_seq2seq()
        if self.data.train_on != "answers":
            fix = "Use answers, or a decoder-only base model."
            found.append(Issue("data.train_on", "An encoder–decoder model trains only on its answers.", fix))
        return found

    def _value_issues(self) -> list[Issue]:
        found: list[Issue] = []
        for name, part in PARTS.items():
            for item in dataclasses.fields(part):
                path, value = f"{name}.{item.name}", getattr(getattr(self, name), item.name)
                words = choices_of(part, item.name)
                if words and value not in words:
                    found.append(Issue(path, f"{value!r:.80} is not a choice.", f"Choose one of {', '.join(words)}."))
                found += limit_issues(path, value, option_of(item))
        return found

    def _combination_issues(self) -> list[Issue]:
        found = self.lora.issues(self.model.quantization) + self.preference.issues(self.data.method)
        if self.data.method != "sft" and self.data.train_on != "answers":
            fix = "Use answers, or the method sft."
            found.append(Issue("data.train_on", f"{self.data.method} trains on answers only.", fix))
        if self.model.shard == "always" and self.model.gpus == 1:
            text = "The base model cannot be sharded on a single GPU."
            found.append(Issue("model.shard", text, "Use auto, or raise model.gpus.", beside="model.gpus"))
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
                    beside="data.max_seq_length",
                )
            )
        if self.evaluation.patience and not (self.data.holdout or self.data.holdout_path):
            found.append(
                Issue(
                    "evaluation.patience",
                    "Early stopping needs held-out rows.",
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
    "preference": PreferenceSpec,
    "evaluation": EvaluationSpec,
}


def option_of(item: "dataclasses.Field[Any]") -> Option:
    """The Option of a field of one of the PARTS."""
    option: Option = item.metadata["option"]
    return option


def choices_of(part: type[Any], name: str) -> tuple[str, ...]:
    """The allowed words of a field; empty if any value of its type is."""
    hint = get_type_hints(part)[name]
    return get_args(hint) if get_origin(hint) is Literal else ()


def _paths_of(issue: Issue) -> set[str]:
    """The paths of the values that an issue is about, and of their parts."""
    paths = {issue.path, issue.beside} - {""}
    return paths | {path.partition(".")[0] for path in paths}


class _StrictLoader(yaml.SafeLoader):
    """Rejects a key that a mapping has twice, of which YAML would silently take the last."""

    @classmethod
    def read(cls, text: str) -> Any:
        """The data of a text. Raises yaml.YAMLError."""
        loader = cls(text)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:  # noqa: FBT001, FBT002 # its base class's
        seen: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key.value, str)):
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"{key.value[:60]} is given twice", problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _yaml_problem(error: Exception) -> str:
    """Where a text stops being YAML, and why."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    why = getattr(error, "problem", None) or getattr(error, "reason", None)
    return f"{place}{why or 'nested too deeply'}"


def _known_place(name: object) -> str:
    """A hint for a value in the wrong part, or under another tool's name."""
    places = [f"{part}.{name}" for part, fields in PARTS.items() if name in get_type_hints(fields)]
    place = places[0] if places else FIELD_ALIASES.get(str(name).lower().replace("-", "_"), "")
    return f"Did you mean {place}? " if place else ""


def _read_part(path: str, part: type[Any], data: Any, problems: list[Issue]) -> Any:
    if data is None:  # left out, or a YAML section with everything commented out
        return part()
    if not isinstance(data, dict):
        problems.append(Issue(path, "This part is a mapping of values.", "Write name: value under it."))
        return part()
    hints = get_type_hints(part)
    for key in data.keys() - hints.keys():
        fix = f"{_known_place(key) or did_you_mean([key], hints)}Known are {', '.join(hints)}."
        problems.append(Issue(f"{path}.{key}", "There is no such value.", fix))
    values = {}
    for name, hint in hints.items():
        if name in data:
            try:
                values[name] = coerce(data[name], hint)
            except (ValueError, OverflowError) as error:
                problems.append(Issue(f"{path}.{name}", f"{shown(data[name])} is not usable here.", str(error)))
    return part(**values)
