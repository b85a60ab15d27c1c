"""Downloads a dataset from the Hugging Face hub: only data files of one commit, up to a size limit, no scripts."""

import re
import shutil
from pathlib import Path
from typing import Any
from zipfile import ZIP_STORED, ZipFile, ZipInfo

from huggingface_hub import HfApi, constants, hf_hub_download

from trainer.bases import REVISION, hub_failures
from trainer.errors import TrainerError
from trainer.events import Emit, Fetched

HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}(/[A-Za-z0-9][A-Za-z0-9._-]{0,95})?")
DATA_FILE = re.compile(r"[^/.\0][^/\0]*\.(parquet|jsonl?|ndjson|csv|tsv)(\.(gz|zst))?")
# Metadata files that libraries write beside the data.
METADATA_FILES = {"dataset_infos.json", "dataset_info.json", "dataset_dict.json", "state.json", "package.json"}
CHUNK = 1024 * 1024


def fetch_data(hub_id: str, revision: str, out: Path, *, only: str, limit: int, emit: Emit) -> dict[str, Any]:
    """Download the data files whose path contains `only` to the file `out`; several are stored in a zip.

    Returns its facts: `revision` (the commit), `name`, `files` and `bytes`. If there are more than `limit` bytes,
    nothing is downloaded. Raises TrainerError; `out` is then untouched.
    """
    if not HUB_ID.fullmatch(hub_id) or ".." in hub_id:
        raise TrainerError("user_config", f"{hub_id!r:.120} is not a hub id.", "Write it as owner/name.")
    if revision and (not REVISION.fullmatch(revision) or ".." in revision):
        raise TrainerError("user_config", f"{revision!r:.80} is not a revision.", "Write a branch, a tag or a commit.")
    if constants.HF_HUB_OFFLINE:
        text = f"{hub_id} cannot be fetched: this server is offline (HF_HUB_OFFLINE is set)."
        raise TrainerError("user_config", text, "Unset HF_HUB_OFFLINE, or upload the files.")
    staging = out.with_name(f".{out.name}-files")
    shutil.rmtree(staging, ignore_errors=True)
    try:
        with hub_failures(hub_id, revision, what="dataset"):
            commit, sizes = _listed(hub_id, revision, only)
            _check_size(sum(sizes.values()), limit)
            files = _download(hub_id, commit, sizes, staging, emit)
        name = _combine(files, staging, out)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return {"revision": commit, "name": name, "files": len(files), "bytes": out.stat().st_size}


def _listed(hub_id: str, revision: str, only: str) -> tuple[str, dict[str, int]]:
    """The revision's current commit, and the sizes of its data files by path."""
    info = HfApi().dataset_info(hub_id, revision=revision or "main", files_metadata=True)
    names = {one.rfilename: one.size or 0 for one in info.siblings or []}
    data = {name: size for name, size in sorted(names.items()) if is_data_file(name)}
    chosen = {name: size for name, size in data.items() if only in name}
    if chosen:
        return info.sha or revision, chosen
    if data:
        examples = ", ".join(list(data)[:5])
        text = f'No data file of {hub_id} has "{only[:80]}" in its path.'
        raise TrainerError("user_config", text, f"It has {len(data):,}, such as {examples}.")
    if any(name.endswith(".py") for name in names):
        text = f"{hub_id} contains a script and no data files. Scripts are never run."
        raise TrainerError("user_config", text, "Try the revision refs/convert/parquet, or upload the data.")
    text = f"{hub_id} contains no Parquet, JSON, JSONL or CSV files."
    raise TrainerError("user_config", text, "Choose another dataset, or upload the data.")


def is_data_file(path: str) -> bool:
    """Whether a path on the hub is that of a data file, and not hidden or unsafe."""
    *folders, name = path.split("/")
    is_safe = "\\" not in path and "\0" not in path and all(one and not one.startswith(".") for one in folders)
    return is_safe and name not in METADATA_FILES and bool(DATA_FILE.fullmatch(name))


def _check_size(size: int, limit: int) -> None:
    if size > limit:
        text = f"The data files have {size / 1e6:,.0f} MB; at most {limit / 1e6:,.0f} MB are allowed."
        raise TrainerError("user_config", text, "Choose some of the files by their path, or raise MAX_UPLOAD_MB.")


def _download(hub_id: str, commit: str, sizes: dict[str, int], staging: Path, emit: Emit) -> list[tuple[str, Path]]:
    total, done, files = sum(sizes.values()), 0, []
    for name, size in sizes.items():
        emit(Fetched(done=done, of=total, what=f"Fetching {name}"[:200]))
        path = hf_hub_download(hub_id, name, repo_type="dataset", revision=commit, local_dir=staging)
        files.append((name, Path(path)))
        done += size
    emit(Fetched(done=total, of=total, what="Combining the files"))
    return files


def _combine(files: list[tuple[str, Path]], staging: Path, out: Path) -> str:
    """Store all files in the single file `out`. Returns its name."""
    if len(files) == 1:
        [(name, path)] = files
        path.replace(out)
        return name.rpartition("/")[2]
    combined = staging / "combined.zip"
    with ZipFile(combined, "w", ZIP_STORED) as archive:
        for name, path in files:
            with path.open("rb") as source, archive.open(ZipInfo(name), "w", force_zip64=True) as member:
                shutil.copyfileobj(source, member, CHUNK)
    combined.replace(out)
    return f"{len(files)} files.zip"
