"""Checks before training: everything wrong is reported at once, before a row is read or a weight is loaded."""

import os
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig

from trainer.adapter_layers import context_length, layers_of
from trainer.base_facts import inspect_folder
from trainer.bases import fetch_hub, is_hub_id
from trainer.errors import TrainerError
from trainer.events import Emit, Log
from trainer.lora_names import issues_in
from trainer.ranks import Ranks
from trainer.spec import TrainSpec
from trainer.spec_values import Issue, refusal


def make_ready(spec: TrainSpec, *, out: Path, resume: Path | None, emit: Emit, ranks: Ranks) -> Path:
    """Check the spec and return its base model's folder, fetching the model from the hub into `out` if needed.

    Raises TrainerError(user_config) with everything that is wrong. A hub model is checked once it has been fetched.
    """
    if problems := problems_of(spec, out=out, resume=resume):
        raise refusal(problems)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except FileNotFoundError as error:  # in /proc, say, whoever may write
        raise refusal([Issue("--out", f"No folder can be made at {out}.", "Choose another.")]) from error
    folder = Path(spec.model.base)
    if folder.is_dir():
        return folder
    emit(Log(text=f"There is no folder {folder} here: fetching it from the hub"))
    if ranks.is_main:  # another process would replace the folder while it is being read
        fetch_hub(spec.model.base, spec.model.revision, out / "base", emit)
    ranks.broadcast_object(None)
    if problems := issues_on_base(spec, out / "base"):
        raise refusal(problems)
    return out / "base"


def problems_of(
    spec: TrainSpec, unread: Sequence[Issue] = (), *, out: Path | None = None, resume: Path | None = None
) -> list[Issue]:
    """All problems: bad values, missing files and folders, and what the base model does not support.

    `unread`: the issues of a SpecError, for a spec that could be read only in part.
    """
    folder, value_issues = Path(spec.model.base), list(unread) or spec.issues()
    file_issues = [
        *_file_issues("data.path", spec.data.path),
        *_file_issues("data.holdout_path", spec.data.holdout_path),
        *_resume_issues(resume),
        *_out_issues(out),
        *(issues_on_base(spec, folder) if spec.model.base and folder.is_dir() else _base_issues(spec.model.base)),
    ]
    reported = {one.path for one in unread}
    return value_issues + [one for one in file_issues if one.path not in reported]


def issues_on_base(spec: TrainSpec, folder: Path) -> list[Issue]:
    """What the base model in `folder` does not support, judged by its config and tensor names."""
    try:
        facts = inspect_folder(folder)
        longest = context_length(AutoConfig.from_pretrained(folder, local_files_only=True))
        parts = layers_of(folder)
    except TrainerError as error:
        return [Issue("model.base", error.text, error.fix)]
    except (ValueError, KeyError, StrictDataclassError) as error:  # from transformers, about the config
        why = str(error).rpartition("Error: ")[2].partition(". ")[0].removesuffix(".")
        text = f"Its config.json describes no usable model: {why}."
        return [Issue("model.base", text, "Fetch it again, or choose another base model.")]
    of_template = _template_issues(spec, has_one=facts["has_chat_template"])
    return [*spec.issues_on(facts["task"], longest), *of_template, *issues_in(parts, spec.lora)]


def _template_issues(spec: TrainSpec, *, has_one: bool) -> list[Issue]:
    if has_one or not spec.evaluation.probes:
        return []
    text = "A probe prompt is asked as a conversation, and the base model has no chat template."
    return [Issue("evaluation.probes", text, "Leave them out, or choose an instruction-tuned base model.")]


def _base_issues(base: str) -> list[Issue]:
    """Problems of a base that is not a local folder."""
    if Path(base).is_file():
        return [Issue("model.base", f"{base} is a file.", "Name the folder with the model's files.")]
    if not base or is_hub_id(base):
        return []
    text = f"There is no folder {base}" + ("." if Path(base).is_absolute() else " here, and it is not a hub id.")
    written_out = " Write ~ out." if base.startswith("~") else ""
    return [Issue("model.base", text, f"Check the path; a hub id is written owner/name.{written_out}")]


def _file_issues(field: str, path: str) -> list[Issue]:
    if not path or Path(path).is_file():
        return []
    if Path(path).is_dir():
        return [Issue(field, f"{path} is a folder.", "Name a file of rows.")]
    return [Issue(field, f"There is no file {path}.", "Check the path.")]


def _resume_issues(resume: Path | None) -> list[Issue]:
    if resume is None or resume.is_dir():
        return []
    return [Issue("--resume", f"There is no folder {resume}.", "Check the path, or start afresh.")]


def _out_issues(out: Path | None) -> list[Issue]:
    """Whether the folder could be created, without creating it."""
    existing = next((one for one in (out, *out.parents) if one.exists()), None) if out else None
    if existing is None or (existing.is_dir() and os.access(existing, os.W_OK)):
        return []
    why = f"{existing} is not writable" if existing.is_dir() else f"{existing} is a file"
    return [Issue("--out", f"No folder can be made at {out}: {why}.", "Choose another.")]
