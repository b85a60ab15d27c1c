"""What a child said that took a step of an import, as facts or as a UserError."""

import json
from pathlib import Path
from typing import Any

from trainer.errors import EXIT_CODES
from webapp.common.errors import UserError
from webapp.datasets.child import MEMORY_BYTES, Ending

FIXES = {
    "adapter": "Send only the adapter's own files.",
    "base model": "Check that its folder holds a whole model, and try again.",
}


class ChildFailed(Exception):
    """Our own code failed in the child; its words are for the log."""


def told_by(step: str, ending: Ending | None, work: Path, *, what: str = "adapter") -> dict[str, Any]:
    """The facts of a step that lie in its folder below `work`. Raises UserError for what is wrong with what it read."""
    if ending is not None and ending.status == EXIT_CODES["finished"]:
        facts: dict[str, Any] = json.loads((work / step / f"{step}.json").read_text(encoding="utf-8"))
        return facts
    failed = ending.failed if ending else None
    if ending is None or ending.out_of_time:
        raise UserError("import_refused", text=f"Reading the {what} took too long.", fix=FIXES[what])
    if failed and failed.code == "disk_full":
        raise UserError("upload_no_room")
    if (failed and failed.code == "out_of_memory") or "MemoryError" in ending.stderr:
        text = f"Reading the {what} took more than {MEMORY_BYTES // 1024**3} GB of memory."
        raise UserError("import_refused", text=text, fix=FIXES[what])
    if failed and failed.code != "internal":
        raise UserError("import_refused", text=failed.text, fix=failed.fix)
    raise ChildFailed(f"adapter {step} ended with {ending.status}: {ending.stderr}")
