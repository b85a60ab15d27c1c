"""The first part of the inspection of a version that nobody uploaded: fetching its files from the hub."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from django.conf import settings

from trainer.events import Fetched, Finished
from webapp.common.storage import sha256_of
from webapp.common.words import bytes_text
from webapp.datasets import lifecycle
from webapp.datasets.child import Ending, last_event, run_fetch
from webapp.datasets.models import DatasetVersion

logger = logging.getLogger(__name__)


class NotFetched(Exception):
    """Why it could not be fetched, for people, and what to do."""

    def __init__(self, text: str, fix: str) -> None:
        super().__init__(text)
        self.text, self.fix = text, fix


def is_to_fetch(version: DatasetVersion) -> bool:
    return "hub" in version.source and not version.original_path.is_file()


def fetch(version: DatasetVersion, inspection: int, out: Path, still_ours: Callable[[], bool]) -> bool:
    """Bring the original here, and into the row what it is. False when the inspection is no longer ours.

    Raises NotFetched.
    """
    source = version.source
    told = [source["hub"], f"--limit={settings.MAX_UPLOAD_BYTES}", f"--out={out / 'original'}"]
    told += [f"--{name}={source[name]}" for name in ("revision", "only") if source.get(name)]
    ending = run_fetch(told, out, still_ours=still_ours)
    if ending is None:
        return False
    facts = _facts(ending, out)
    original = out / "original"
    found: dict[str, Any] = {"original_name": facts["name"], "size": original.stat().st_size}
    found |= {"original_sha256": sha256_of(original), "source": source | {"revision": facts["revision"]}}
    if not lifecycle.fetched(version.pk, inspection, **found):
        return False
    original.replace(version.original_path)
    version.refresh_from_db()
    return True


def _facts(ending: Ending, out: Path) -> dict[str, Any]:
    if ending.failed:
        raise NotFetched(ending.failed.text, ending.failed.fix)
    last = last_event(out)
    if not isinstance(last, Finished):
        logger.error("fetching ended with %s: %s", ending.status, ending.stderr)
        raise NotFetched("Fetching the files took too long or ended unexpectedly.", "Try again, or upload the files.")
    return last.facts


def progress(version: DatasetVersion) -> str:
    """How far the fetching is, as a sentence."""
    said = last_event(version.aside(f"inspection-{version.inspection}"))
    if isinstance(said, Fetched) and said.of:
        return f"{said.what}: {bytes_text(said.done)} of {bytes_text(said.of)} are here."
    return f"The data files of {version.source['hub']} are being fetched from the hub."
