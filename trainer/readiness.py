"""What keeps a training from starting: told all at once, before a row is read or a weight is loaded."""

import os
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig

from trainer.adapter_layers import layers_of
from trainer.base_facts import inspect_folder
from trainer.bases import fetch_hub, is_hub_id
from trainer.errors import TrainerError
from trainer.events import Emit, Log
from trainer.lora_names import issues_in
from trainer.ranks import Ranks
from trainer.spec import TrainSpec
from trainer.spec_values import Issue, refusal


def make_ready(spec: TrainSpec, *, out: Path, resume: Path | None, emit: Emit, ranks: Ranks) -> Path:
    """The folder of the spec's base model; one that lies on the hub is fetched into `out`.

    Raises TrainerError(user_config) with everything that is wrong. A base of the hub shows only once it is here what it
    does not have.
    """
    if problems := problems_of(spec, out=out, resume=resume):
        raise refusal(problems)
    out.mkdir(parents=True, exist_ok=True)
    folder = Path(spec.model.base)
    if folder.is_dir():
        return folder
    emit(Log(text=f"There is no folder {folder} here: it is fetched from the hub"))
    if ranks.is_main:  # the others would put the folder there again, while it is read
        fetch_hub(spec.model.base, spec.model.revision, out / "base", emit)
    ranks.broadcast_object(None)
    if problems := issues_on_base(spec, out / "base"):
        raise refusal(problems)
    return out / "base"


def problems_of(
    spec: TrainSpec, unread: Sequence[Issue] = (), *, out: Path | None = None, resume: Path | None = None
) -> list[Issue]:
    """All there are: values, files and folders that are not there, and what the base model does not have.

    `unread`: what `SpecError` told of a spec that could be read in part.
    """
    folder, own = Path(spec.model.base), list(unread) or spec.issues()
    outside = [
        *_file_issues("data.path", spec.data.path),
        *_file_issues("data.holdout_path", spec.data.holdout_path),
        *_resume_issues(resume),
        *_out_issues(out),
        *(issues_on_base(spec, folder) if spec.model.base and folder.is_dir() else _base_issues(spec.model.base)),
    ]
    said = {one.path for one in unread}
    return own + [one for one in outside if one.path not in said]


def issues_on_base(spec: TrainSpec, folder: Path) -> list[Issue]:
    """What a spec asks in vain of the base model in a folder, told from its config and the names of its tensors."""
    try:
        facts = inspect_folder(folder)
        reads = getattr(AutoConfig.from_pretrained(folder, local_files_only=True), "max_position_embeddings", None)
        parts = layers_of(folder)
    except TrainerError as error:
        return [Issue("model.base", error.text, error.fix)]
    except (ValueError, KeyError, StrictDataclassError) as error:  # what transformers says of a config
        why = str(error).rpartition("Error: ")[2].partition(". ")[0].removesuffix(".")
        text = f"No model can be made from its config.json: {why}."
        return [Issue("model.base", text, "Fetch it again, or choose another base model.")]
    return [*spec.issues_on(facts["task"], reads), *issues_in(parts, spec.lora)]


def _base_issues(base: str) -> list[Issue]:
    """Of a base that is no folder here."""
    if Path(base).is_file():
        return [Issue("model.base", f"{base} is a file.", "Name the folder that the model's files lie in.")]
    if not base or is_hub_id(base):
        return []
    text = f"There is no folder {base}" + ("." if Path(base).is_absolute() else " here, and it is no hub id.")
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
    """Whether a folder could be made there; none is yet."""
    there = next((one for one in (out, *out.parents) if one.exists()), None) if out else None
    if there is None or (there.is_dir() and os.access(there, os.W_OK)):
        return []
    why = f"{there} may not be written to" if there.is_dir() else f"{there} is a file"
    return [Issue("--out", f"No folder can be made at {out}: {why}.", "Choose another.")]
