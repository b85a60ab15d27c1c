"""The form of a new job, built from TrainSpec: names, types, limits, choices and hints all come from there."""

import dataclasses
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cached_property
from typing import Any, cast, get_origin, get_type_hints
from uuid import UUID, uuid4

from django import forms

from trainer.presets import PRESET_NAMES, preset
from trainer.spec import PARTS, Issue, Option, SpecError, TrainSpec, choices_of, kind_issues, option_of
from webapp.accounts.models import Team, User
from webapp.adapters.models import BaseModel
from webapp.adapters.plain_words import PART_TITLES
from webapp.datasets.models import DatasetVersion, VersionStatus
from webapp.jobs.base_layers import layer_issues
from webapp.jobs.labels import LABELS, word_of
from webapp.jobs.models import Job
from webapp.jobs.naming import NAME_LENGTH

# What the job itself knows: its base model and its dataset.
FILLED_IN = ("model.base", "model.revision", "data.path", "data.holdout_path")
METHOD = "data_method"


@dataclasses.dataclass(frozen=True)
class SpecField:
    """One value of a spec and its place in the form."""

    part: str
    name: str
    option: Option
    default: Any

    @property
    def path(self) -> str:
        return f"{self.part}.{self.name}"

    @property
    def key(self) -> str:
        """Its name in the form."""
        return f"{self.part}_{self.name}"

    @property
    def hint(self) -> Any:
        return get_type_hints(PARTS[self.part])[self.name]

    @property
    def label(self) -> str:
        return LABELS.get(self.name, self.name.replace("_", " ").capitalize())


def spec_fields() -> Iterator[SpecField]:
    """Every value of a spec that a person sets."""
    for part, cls in PARTS.items():
        for item in dataclasses.fields(cls):
            found = SpecField(part, item.name, option_of(item), item.default)
            if found.path not in FILLED_IN:
                yield found


def labelled(text: str) -> str:
    """A sentence about a spec, with each value called what the form calls it."""
    labels = {one.path: f"“{one.label}”" for one in spec_fields()}
    return re.sub(r"\b[a-z]+\.[a-z_]+", lambda found: labels.get(found[0], found[0]), text)


def form_value(value: Any) -> Any:
    """A value of a spec as its field shows it: names and numbers on one line, prompts and name: number one per line."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return "\n".join(f"{name}: {form_value(number)}" for name, number in value.items())
    if not isinstance(value, tuple):
        return value
    words = [str(one) for one in value]
    return ", ".join(words) if all(" " not in one for one in words) else "\n".join(words)


def preset_values(name: str) -> dict[str, Any]:
    """All values of the form under a preset."""
    changed = preset(name)
    return {one.key: form_value(changed.get(one.part, {}).get(one.name, one.default)) for one in spec_fields()}


def initial_values(asked: Mapping[str, str]) -> dict[str, Any]:
    """What a link to the form may choose: ?preset=quick&dataset=<version>&base=<base>&max_seq_length=1024.

    Nonsense chooses nothing.
    """
    name = asked.get("preset", "")
    values = preset_values(name if name in PRESET_NAMES else PRESET_NAMES[0])
    for key, field in (("dataset", "dataset_version"), ("base", "base_model")):
        with suppress(ValueError):
            values[field] = UUID(asked.get(key, ""))
    length = asked.get("max_seq_length", "")
    if length.isascii() and length.isdigit() and len(length) < 7:
        values["data_max_seq_length"] = int(length)
    return values


def values_of(job: Job) -> dict[str, Any]:
    """The form as it was filled in for a job."""
    spec = job.train_spec
    values = {one.key: form_value(getattr(getattr(spec, one.part), one.name)) for one in spec_fields()}
    return (
        values
        | {"name": job.name if job.is_named else "", "base_model": job.base_model_id}
        | {"dataset_version": job.dataset_version_id, "validation_version": job.validation_version_id}
    )


def all_presets() -> dict[str, dict[str, Any]]:
    """What a click on a preset fills in: the method is not its to choose, it follows the dataset."""
    presets = {name: preset_values(name) for name in PRESET_NAMES}
    return {name: {key: value for key, value in values.items() if key != METHOD} for name, values in presets.items()}


def method_for(version: DatasetVersion) -> str:
    """The method that learns from rows of this kind; empty while they are still being checked."""
    methods = choices_of(PARTS["data"], "method")
    return next(name for name in methods if not kind_issues(name, version.kind)) if version.is_ready else ""


class VersionChoice(forms.ModelChoiceField):  # type: ignore[type-arg]  # not generic when it runs
    def label_from_instance(self, obj: DatasetVersion) -> str:
        kind = {"preference": " of chosen and rejected", "labelled": " of good and bad"}.get(obj.kind, "")
        if obj.is_pending:
            return f"{obj} · still being checked"
        return f"{obj} · {obj.row_count:,} row{'' if obj.row_count == 1 else 's'}{kind} · {obj.came_as}"


class RetryForm(forms.Form):
    """The button that tries a job again: sent twice, it makes one job."""

    form_key = forms.UUIDField(widget=forms.HiddenInput, initial=uuid4)


class JobForm(forms.Form):
    """What to train, how much, how. `cleaned_data["spec"]` is the TrainSpec."""

    name = forms.CharField(
        max_length=NAME_LENGTH,
        required=False,
        label="Name",
        help_text="The adapter will be called so. Left empty, it is named after the dataset.",
    )
    base_model = forms.ModelChoiceField(
        BaseModel.objects.none(), label="Base model", empty_label=None, help_text="The model that learns."
    )
    dataset_version = VersionChoice(
        DatasetVersion.objects.none(), label="Dataset", empty_label=None, help_text="What it learns from."
    )
    validation_version = VersionChoice(
        DatasetVersion.objects.none(),
        required=False,
        label="Measured on",
        empty_label="A share of the dataset",
        help_text="What it has learnt is measured on rows that it does not see: some of its own, or another dataset.",
    )
    form_key = forms.UUIDField(widget=forms.HiddenInput, initial=uuid4)

    def __init__(self, *args: Any, user: User, team: Team, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._choice("base_model").queryset = BaseModel.objects.ready()
        versions = DatasetVersion.objects.visible_to(user).filter(dataset__team=team)
        versions = versions.exclude(status=VersionStatus.REJECTED)
        for name in ("dataset_version", "validation_version"):
            self._choice(name).queryset = versions.select_related("dataset").order_by("-created_at")
        for one in spec_fields():
            self.fields[one.key] = _field(one)
            self.fields[one.key].unit = one.option.unit  # type: ignore[attr-defined]  # for the template
        if not self.is_bound:
            self._choose_method()

    def _choose_method(self) -> None:
        """A method that learns from the rows which the form shows first."""
        version = self._chosen_first["dataset_version"]
        if version and (method := method_for(version)):
            self.initial[METHOD] = method

    def methods(self) -> dict[str, str]:
        """By dataset: what the page chooses as the method when another dataset is chosen."""
        versions = self._choice("dataset_version").queryset
        return {str(one.pk): method_for(one) for one in versions} if versions is not None else {}

    def _choice(self, name: str) -> "forms.ModelChoiceField[Any]":
        return cast("forms.ModelChoiceField[Any]", self.fields[name])

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or self.cleaned_data
        self._check_length(cleaned)
        try:
            spec = TrainSpec.from_dict(_spec_data(cleaned))
        except SpecError as error:  # what could be read of it is checked like any other
            self._show(error.issues)
            spec = error.spec or TrainSpec()
        else:
            self._show(spec.issues())
        chosen = (cleaned.get("dataset_version"), cleaned.get("validation_version"))
        files = [one for one in chosen if one and one.is_ready]
        base = cleaned.get("base_model")
        task, of_layers = (base.task, layer_issues(base, spec.lora)) if base else ("causal", [])
        of_rows = [issue for one in files for issue in kind_issues(spec.data.method, one.kind, task)]
        self._show(spec.issues_on(task) + of_layers + of_rows)
        return cleaned | {"spec": spec}

    def _check_length(self, cleaned: Mapping[str, Any]) -> None:
        base, length = cleaned.get("base_model"), cleaned.get("data_max_seq_length")
        reads = base.facts.get("context_length") if base else None
        if base and reads and length and length > reads:
            self.add_error("data_max_seq_length", f"{base.name} reads at most {reads} tokens. Use at most {reads}.")

    def _show(self, issues: list[Issue]) -> None:
        """Each issue at its field, unless the field itself was unreadable already."""
        for issue in issues:
            key = issue.path.replace(".", "_", 1)
            if key not in self.errors:
                self.add_error(key if key in self.fields else None, labelled(f"{issue.problem} {issue.fix}"))

    def asked(self) -> tuple[TrainSpec, BaseModel, DatasetVersion] | None:
        """What the form says now, for the estimate: also when other values of it are still wrong."""
        if self.is_bound:
            self.is_valid()  # fills cleaned_data with what can be read
        said = self.cleaned_data if self.is_bound else self._preselected()
        base, version = said.get("base_model"), said.get("dataset_version")
        if base is None or version is None:
            return None
        try:
            return TrainSpec.from_dict(_spec_data(said)), base, version
        except SpecError:
            return None

    def passed_over(self) -> list[str]:
        """What the estimate counts by default values because it is wrong now."""
        return [str(self[one.key].label) for one in spec_fields() if self.is_bound and one.key in self.errors]

    def _preselected(self) -> dict[str, Any]:
        """What the browser would send for an untouched form."""
        said = {one.key: self.get_initial_for_field(self.fields[one.key], one.key) for one in spec_fields()}
        return said | self._chosen_first

    @cached_property
    def _chosen_first(self) -> dict[str, Any]:
        """The base model and the dataset that an untouched form shows."""
        return {name: self._first(name) for name in ("base_model", "dataset_version")}

    def _first(self, name: str) -> Any:
        rows, wish = self._choice(name).queryset, self.initial.get(name)
        if rows is None:
            return None
        return (rows.filter(pk=wish).first() if wish else None) or rows.first()

    def offers(self) -> dict[str, bool]:
        """Whether there is anything to choose at all."""
        data, bases = self._choice("dataset_version").queryset, self._choice("base_model").queryset
        return {"has_data": data is not None and data.exists(), "has_base": bases is not None and bases.exists()}

    # Groups of the page

    def how_much(self) -> list[forms.BoundField]:
        return self._bound("data", "optim")

    def how(self) -> list[forms.BoundField]:
        return self._bound("model", "lora")

    def other_options(self) -> list[tuple[str, list[forms.BoundField]]]:
        """What is asked rarely, by part."""
        rare = [one for one in spec_fields() if not one.option.common]
        return [(PART_TITLES[part], [self[one.key] for one in rare if one.part == part]) for part in PARTS]

    def has_other_errors(self) -> bool:
        return any(field.errors for _, fields in self.other_options() for field in fields)

    def wrong_fields(self) -> list[forms.BoundField]:
        return [field for field in self.visible_fields() if field.errors]

    def _bound(self, *parts: str) -> list[forms.BoundField]:
        return [self[one.key] for one in spec_fields() if one.option.common and one.part in parts]


def _field(one: SpecField) -> forms.Field:
    """The form field of a value, by its type. Limits are the browser's to show and the spec's to check."""
    common: dict[str, Any] = {"label": one.label, "help_text": one.option.meaning, "initial": form_value(one.default)}
    limits = {
        key: f"{value:g}" for key, value in (("min", one.option.low), ("max", one.option.high)) if value is not None
    }
    if words := choices_of(PARTS[one.part], one.name):
        return forms.ChoiceField(choices=[(word, word_of(one.name, word)) for word in words], **common)
    if one.hint is bool:
        return forms.BooleanField(required=False, **common)
    if one.hint is int:
        return forms.IntegerField(widget=forms.NumberInput(attrs=limits), **common)
    if one.hint is float:
        return forms.FloatField(widget=forms.NumberInput(attrs=limits | {"step": "any"}), **common)
    if get_origin(one.hint) in (tuple, dict):
        widget = forms.TextInput() if one.hint == tuple[int, ...] else forms.Textarea(attrs={"rows": 3})
        return forms.CharField(required=False, max_length=20000, widget=widget, **common)
    return forms.CharField(max_length=2000, **common)


def _spec_data(cleaned: Mapping[str, Any]) -> dict[str, Any]:
    """Plain data for `TrainSpec.from_dict`; what could not be read is left to its default, its error stands already."""
    base, version = cleaned.get("base_model"), cleaned.get("dataset_version")
    data: dict[str, Any] = {part: {} for part in PARTS}
    data["model"] |= {"base": base.path if base else "-", "revision": base.revision if base else ""}
    data["data"] |= {"path": str(version.rows_path) if version else "-"}
    data["data"] |= {"holdout_path": "-" if cleaned.get("validation_version") else ""}
    for one in spec_fields():
        if one.key in cleaned:
            data[one.part][one.name] = _spec_value(one, cleaned[one.key])
    return data


def _spec_value(one: SpecField, value: Any) -> Any:
    if one.hint == tuple[str, ...]:
        return [line.strip() for line in value.splitlines() if line.strip()]
    if one.hint == tuple[int, ...]:
        return value.replace(",", " ").split()
    if get_origin(one.hint) is dict:
        pairs = [line.partition(":") for line in value.splitlines() if line.strip()]
        return {name.strip(): number.strip() for name, _, number in pairs}
    return value
