"""What a limited child finds out about a version's rows, kept in a file of its folder, so that it goes with it.

It is made when a page first asks for it, and can be made again at any time.
"""

import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from django.core.cache import cache

from trainer.errors import EXIT_CODES
from webapp.common.storage import dataset_folder, sync_path, work_folder
from webapp.datasets.child import Ending

logger = logging.getLogger(__name__)

RING_SECONDS = 60  # between two bells for one of them
FAILURE_SECONDS = 3600  # after which one that failed is tried again


@dataclass(frozen=True)
class KeptAnswer:
    """One of them, in the file `name`. `what` it is, and making it (`work`), in words.

    holds: a name in it that older code did not write; what lacks it is made again.
    """

    version_id: UUID
    name: str
    what: str
    work: str
    holds: str = ""

    @property
    def path(self) -> Path:
        return dataset_folder(self.version_id) / self.name

    def read(self) -> dict[str, Any] | None:
        """What the child wrote, or {"failure": …}; None while it is not there."""
        try:
            found: dict[str, Any] = json.loads(self.path.read_text(encoding="utf-8"))
            stale = self._is_stale(found)
        except (FileNotFoundError, ValueError):
            return None
        return None if stale else found

    def _is_stale(self, found: dict[str, Any]) -> bool:
        if "failure" in found:
            return time.time() - self.path.stat().st_mtime > FAILURE_SECONDS
        return bool(self.holds) and self.holds not in found

    def is_due(self) -> bool:
        """Whether to ring for it: nobody did a moment ago."""
        return bool(cache.add(f"rung-for:{self.version_id}:{self.name}", 1, timeout=RING_SECONDS))

    def make(self, run: Callable[[Path], Ending | None], *, written: str) -> None:
        """`run` has the child work in the folder it is given; `written` is what that calls the answer."""
        with work_folder(self.path.parent / f".tmp-{uuid4().hex}") as out:
            ending = run(out)
            if ending is None:
                return
            if ending.status == EXIT_CODES["finished"]:
                (out / written).replace(self.path)
                sync_path(self.path.parent)
                return
            logger.error("%s ended with %s: %s", self.path, ending.status, ending.stderr)
            self.keep_failure(self._unexpected(ending))

    def keep_failure(self, text: str) -> None:
        if self.path.parent.is_dir():
            self.path.write_text(json.dumps({"failure": text}), encoding="utf-8")

    def keep_fault(self, mark: str) -> None:
        """The failure when our own code failed."""
        self.keep_failure(f"The {self.what} failed on our side (error {mark}); the server's log has the cause.")

    def _unexpected(self, ending: Ending) -> str:
        if ending.out_of_time:
            return f"{self.work} took too long."
        if ending.failed and ending.failed.code != "internal":
            return f"{ending.failed.text} {ending.failed.fix}".strip()
        return f"The {self.what} {ending.cause}."
