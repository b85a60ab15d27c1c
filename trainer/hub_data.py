"""Brings a dataset's files here from the hub: data alone, at one commit, within a size; never a script."""

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
# What libraries write beside the data, about it.
ABOUT_DATA = {"dataset_infos.json", "dataset_info.json", "dataset_dict.json", "state.json", "package.json"}
CHUNK = 1024 * 1024


def fetch_data(hub_id: str, revision: str, out: Path, *, only: str, limit: int, emit: Emit) -> dict[str, Any]:
    """Fetch the data files whose path contains `only` into the one file `out`, a zip where they are several.

    Returns what it is: `revision` (the commit), `name`, `files` and `bytes`. More than `limit` bytes are refused
    before anything is fetched. Raises TrainerError; `out` is then untouched.
    """
    if not HUB_ID.fullmatch(hub_id) or ".." in hub_id:
        raise TrainerError("user_config", f"{hub_id!r:.120} is no hub id.", "Write it as owner/name.")
    if revision and (not REVISION.fullmatch(revision) or ".." in revision):
        raise TrainerError("user_config", f"{revision!r:.80} is no revision.", "Write a branch, a tag or a commit.")
    if constants.HF_HUB_OFFLINE:
        text = f"{hub_id} cannot be fetched: this server is offline (HF_HUB_OFFLINE is set)."
        raise TrainerError("user_config", text, "Unset HF_HUB_OFFLINE, or upload the files.")
    aside = out.with_name(f".{out.name}-files")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        with hub_failures(hub_id, revision, what="dataset"):
            commit, sizes = _listed(hub_id, revision, only)
            _check_size(sum(sizes.values()), limit)
            files = _download(hub_id, commit, sizes, aside, emit)
        name = _put_together(files, aside, out)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return {"revision": commit, "name": name, "files": len(files), "bytes": out.stat().st_size}


def _listed(hub_id: str, revision: str, only: str) -> tuple[str, dict[str, int]]:
    """The commit that the revision is now, and the data files of it with their sizes."""
    found = HfApi().dataset_info(hub_id, revision=revision or "main", files_metadata=True)
    names = {one.rfilename: one.size or 0 for one in found.siblings or []}
    data = {name: size for name, size in sorted(names.items()) if is_data_file(name)}
    chosen = {name: size for name, size in data.items() if only in name}
    if chosen:
        return found.sha or revision, chosen
    if data:
        some = ", ".join(list(data)[:5])
        text = f'No data file of {hub_id} has "{only[:80]}" in its path.'
        raise TrainerError("user_config", text, f"It has {len(data):,}, such as {some}.")
    if any(name.endswith(".py") for name in names):
        text = f"{hub_id} holds a script and no data files. Scripts are never run."
        raise TrainerError("user_config", text, "Try the revision refs/convert/parquet, or upload the data.")
    text = f"{hub_id} holds no Parquet, JSON, JSONL or CSV files."
    raise TrainerError("user_config", text, "Choose another dataset, or upload the data.")


def is_data_file(path: str) -> bool:
    """Whether a path of the hub names data, and no hidden or foreign place."""
    *folders, name = path.split("/")
    plain = "\\" not in path and "\0" not in path and all(one and not one.startswith(".") for one in folders)
    return plain and name not in ABOUT_DATA and bool(DATA_FILE.fullmatch(name))


def _check_size(size: int, limit: int) -> None:
    if size > limit:
        text = f"The data files have {size / 1e6:,.0f} MB; at most {limit / 1e6:,.0f} MB are taken."
        raise TrainerError("user_config", text, "Choose some of the files by their path, or raise MAX_UPLOAD_MB.")


def _download(hub_id: str, commit: str, sizes: dict[str, int], aside: Path, emit: Emit) -> list[tuple[str, Path]]:
    total, done, files = sum(sizes.values()), 0, []
    for name, size in sizes.items():
        emit(Fetched(done=done, of=total, what=f"Fetching {name}"[:200]))
        path = hf_hub_download(hub_id, name, repo_type="dataset", revision=commit, local_dir=aside)
        files.append((name, Path(path)))
        done += size
    emit(Fetched(done=total, of=total, what="Putting the files together"))
    return files


def _put_together(files: list[tuple[str, Path]], aside: Path, out: Path) -> str:
    """One file of all; returns its name."""
    if len(files) == 1:
        [(name, path)] = files
        path.replace(out)
        return name.rpartition("/")[2]
    joined = aside / "joined.zip"
    with ZipFile(joined, "w", ZIP_STORED) as archive:
        for name, path in files:
            with path.open("rb") as source, archive.open(ZipInfo(name), "w", force_zip64=True) as member:
                shutil.copyfileobj(source, member, CHUNK)
    joined.replace(out)
    return f"{len(files)} files.zip"
