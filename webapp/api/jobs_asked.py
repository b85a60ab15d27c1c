"""Reads what a new fine-tuning job asks for: a base model, files, and everything that makes up a TrainSpec."""

import re
from typing import Any
from uuid import uuid4

from trainer.presets import PRESET_NAMES, preset
from trainer.spec import Issue, SpecError, TrainSpec, kind_issues
from webapp.accounts.access import require_role
from webapp.accounts.models import Role
from webapp.adapters.models import BaseModel
from webapp.api.auth import ApiRequest
from webapp.api.fields import Fields, bad
from webapp.api.file_store import find_file
from webapp.api.file_wire import problems
from webapp.api.jobs_method import WIRE_METHODS, Chosen, read_method, refuse_both
from webapp.api.names import FILE, find_model, uuid_of
from webapp.datasets.models import DatasetVersion, VersionStatus
from webapp.jobs import services
from webapp.jobs.base_layers import layer_issues
from webapp.jobs.models import Job

FIELDS = (
    "model",
    "training_file",
    "validation_file",
    "suffix",
    "seed",
    "method",
    "hyperparameters",
    "integrations",
    "metadata",
    "preset",
    "spec",
)
# What other fields of the request say, and a spec must not.
SAID_ELSEWHERE = {
    ("model", "base"): "model",
    ("model", "revision"): "model",
    ("data", "path"): "training_file",
    ("data", "holdout_path"): "validation_file",
}
USUAL_PRESET = "balanced"
LONGEST_SUFFIX = 64


def submit(request: ApiRequest, body: Fields) -> Job:
    """Queue the job that `body` asks for. It waits for its files to be checked."""
    body.only(*FIELDS, hint="Values of the training go into `spec`, such as `spec.lora.r`.")
    if body.has("integrations") and body.items("integrations"):
        body.bad("integrations", "cannot be used: jobs report to nobody outside; their events carry all metrics")
    base = _base(request, body)
    version = _version(request, body, "training_file")
    aside = _version(request, body, "validation_file") if body.has("validation_file") else None
    if aside and aside.team != version.team:
        body.bad("validation_file", f"belongs to another team than the training file, {version.team.slug}")
    suffix = body.text("suffix", most=LONGEST_SUFFIX).strip() if body.has("suffix") else ""
    return services.submit_job(
        user=request.user,
        name=suffix,
        base_model=base,
        dataset_version=version,
        spec=_spec(body, base, version, aside),
        form_key=uuid4(),
        validation_version=aside,
        metadata=body.metadata(),
    )


def _base(request: ApiRequest, body: Fields) -> BaseModel:
    found = find_model(request.user, request.team, body.text("model", most=1000))
    if found.adapter:
        body.bad("model", "names an adapter; training starts from a base model, such as its `parent`")
    return found.base


def _version(request: ApiRequest, body: Fields, name: str) -> DatasetVersion:
    wire = body.text(name, most=200)
    found = find_file(request.user, uuid_of(wire, FILE))
    if found is None:
        bad(name, f"There is no file `{wire}`, or your key may not see it.", "file_not_found")
    if not isinstance(found, DatasetVersion):
        body.bad(name, f"is a file with the purpose {found.purpose}; it must be fine-tune")
    require_role(found.team, request.user, Role.MEMBER)
    if found.status == VersionStatus.REJECTED:
        bad(name, f"The file cannot be used. {problems(found)}", "invalid_file")
    return found


def _spec(body: Fields, base: BaseModel, version: DatasetVersion, aside: DatasetVersion | None) -> TrainSpec:
    """The preset's values, under those of the method, under those of `spec`. 400 names the field of the first issue."""
    chosen = read_method(body)
    if body.has("seed"):
        chosen.choose("optim", "seed", body.whole("seed", lowest=0, highest=2**31 - 1), "seed")
    own = _own_values(body, chosen)
    name = body.choice("preset", PRESET_NAMES) if body.has("preset") else USUAL_PRESET
    elsewhere = {"model": {"base": "-"}, "data": {"path": "-", "holdout_path": "-" if aside else ""}}
    values = _merged(_usual(base), _method_for(version))
    for layer in (preset(name), chosen.values, own, elsewhere):
        values = _merged(values, layer)
    try:
        spec = TrainSpec.from_dict(values)
    except SpecError as error:
        _refuse(error.issues, chosen)
    of_base = spec.issues_on(base.task, base.facts.get("context_length")) + layer_issues(base, spec.lora)
    _refuse([*spec.issues(), *of_base, *_kind_issues(spec, base, version, aside)], chosen)
    return spec


def _own_values(body: Fields, chosen: Chosen) -> dict[str, Any]:
    spec = body.inside("spec")
    for (part, name), elsewhere in SAID_ELSEWHERE.items():
        inner = spec.values.get(part)
        if isinstance(inner, dict) and inner.get(name):
            bad(f"spec.{part}.{name}", f"`spec.{part}.{name}` is what `{elsewhere}` says; leave it out.")
    for path, said in chosen.said.items():
        part, _, name = path.partition(".")
        inner = spec.values.get(part)
        if isinstance(inner, dict) and name in inner and inner[name] != chosen.values[part][name]:
            refuse_both(f"spec.{path}", said)
    data = spec.values.get("data")
    if isinstance(data, dict) and "method" in data:
        chosen.said.setdefault("data.method", "spec.data.method")
    return spec.values


def _usual(base: BaseModel) -> dict[str, Any]:
    """What differs from the spec's defaults for this base: it may read less than they ask for."""
    usual, reads = TrainSpec().data.max_seq_length, base.facts.get("context_length")
    return {"data": {"max_seq_length": min(usual, reads)}} if reads else {}


def _method_for(version: DatasetVersion) -> dict[str, Any]:
    """Rows that one method alone learns from name it; the wire's scripts say nothing where they mean the usual."""
    method = {"preference": "dpo", "labelled": "kto"}.get(version.kind) if version.is_ready else None
    return {"data": {"method": method}} if method else {}


def _merged(values: dict[str, Any], layer: dict[str, Any]) -> dict[str, Any]:
    """Part by part; what is no part of a spec stays, for the reader of specs to say so."""
    found = dict(values)
    for part, inner in layer.items():
        known = found.get(part)
        found[part] = known | inner if isinstance(known, dict) and isinstance(inner, dict) else inner
    return found


def _kind_issues(spec: TrainSpec, base: BaseModel, *files: DatasetVersion | None) -> list[Issue]:
    """Of files that were checked already; the trainer looks at the others."""
    ready = [one for one in files if one is not None and one.is_ready]
    return [issue for one in ready for issue in kind_issues(spec.data.method, one.kind, base.task)][:1]


def _refuse(issues: list[Issue], chosen: Chosen) -> None:
    """400 for the first issue, with all of them in its text."""
    if not issues:
        return
    usual = {"data.method": "method"}
    told = [(chosen.said.get(one.path) or usual.get(one.path) or _own_path(one.path), one) for one in issues]
    bad(told[0][0], " ".join(f"{param}: {_in_words_of(param, one)}" for param, one in told[:10]))


def _in_words_of(param: str, issue: Issue) -> str:
    """A spec's `sft` is the wire's `supervised`."""
    text = f"{issue.problem} {issue.fix}"
    return text if param.startswith("spec") else re.sub(r"\bsft\b", WIRE_METHODS["sft"], text)


def _own_path(path: str) -> str:
    return f"spec.{path}"[:200] if path else "spec"
