"""Sends a file to the server: small ones at once, large ones in parts that go on where they stood."""

import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lowrank.client import Client, segment
from lowrank.failures import ClientError, WrongUse
from lowrank.printing import Progress, say, size_text

AT_ONCE = 32 << 20  # bytes; larger files go in parts
PART = 16 << 20
GONE = (400, 404)  # of an upload that is no longer open


@dataclass
class Begun:
    """An upload that has begun: its id, and the parts that have arrived, in their order."""

    upload: str
    part_ids: list[str] = field(default_factory=list)


def send(client: Client, file: Path, *, purpose: str = "fine-tune", seconds: int | None = None) -> dict[str, Any]:
    """The file's object. Raises ClientError; sent again after that, a large file goes on with the part it stood at."""
    try:
        size = file.stat().st_size
        if size <= AT_ONCE:
            fields = {"purpose": purpose}
            if seconds:
                fields |= {"expires_after[anchor]": "created_at", "expires_after[seconds]": str(seconds)}
            made: dict[str, Any] = client.send_file("/files", fields, "file", (file.name, file.read_bytes()))
            return made
        return _in_parts(client, file, {"purpose": purpose, "bytes": size, "filename": file.name}, seconds)
    except OSError as error:
        raise WrongUse(f"{file} cannot be read: {error.strerror}.") from error


def _in_parts(client: Client, file: Path, facts: dict[str, Any], seconds: int | None) -> dict[str, Any]:
    notes = _notes(client, file, f"{facts['purpose']} {seconds}")
    begun = _begun(notes)
    if begun.upload and begun.part_ids:
        say(f"Going on after {size_text(len(begun.part_ids) * PART)}.")
    try:
        return _finish(client, file, begun if begun.upload else _begin(client, facts, seconds), notes)
    except ClientError as error:
        if not begun.upload or error.status not in GONE:
            raise
    notes.unlink(missing_ok=True)
    say("The upload that was begun is no longer open; a new one begins.")
    return _finish(client, file, _begin(client, facts, seconds), notes)


def _begin(client: Client, facts: dict[str, Any], seconds: int | None) -> Begun:
    expiry = {"expires_after": {"anchor": "created_at", "seconds": seconds}} if seconds else {}
    return Begun(client.post("/uploads", facts | {"mime_type": "application/octet-stream"} | expiry)["id"])


def _finish(client: Client, file: Path, begun: Begun, notes: Path) -> dict[str, Any]:
    """Send the parts that are missing, then have them put together."""
    total, progress, digest = file.stat().st_size, Progress(), hashlib.md5(usedforsecurity=False)
    path = f"/uploads/{segment(begun.upload)}"
    with file.open("rb") as data:
        for number in range(-(-total // PART)):
            piece = data.read(PART)
            digest.update(piece)
            if number >= len(begun.part_ids):
                begun.part_ids.append(client.send_file(f"{path}/parts", {}, "data", (f"part-{number}", piece))["id"])
                _keep(notes, begun)
                progress.show(f"{size_text(data.tell())} of {size_text(total)}")
    progress.end()
    done = client.post(f"{path}/complete", {"part_ids": begun.part_ids, "md5": digest.hexdigest()}, once=False)
    notes.unlink(missing_ok=True)
    made: dict[str, Any] = done["file"]
    return made


def _notes(client: Client, file: Path, how: str) -> Path:
    """Where it is noted how far this very file has come on its way to this server."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lowrank"
    seen = file.stat()
    account = client.account
    what = f"{account.address} {account.team} {how} {file.resolve()} {seen.st_size} {seen.st_mtime_ns}"
    return cache / f"upload-{hashlib.sha256(what.encode()).hexdigest()[:32]}.json"


def _begun(notes: Path) -> Begun:
    try:
        found = json.loads(notes.read_text(encoding="utf-8"))
        return Begun(str(found["upload"]), [str(one) for one in found["part_ids"]])
    except (OSError, ValueError, KeyError, TypeError):
        return Begun("")


def _keep(notes: Path, begun: Begun) -> None:
    """Without the notes the upload goes on all the same; only a second start would begin anew."""
    try:
        notes.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        part = notes.with_suffix(".part")
        part.write_text(json.dumps({"upload": begun.upload, "part_ids": begun.part_ids}), encoding="utf-8")
        part.replace(notes)
    except OSError as error:
        say(f"The way so far cannot be noted in {notes.parent}: {error.strerror}.")
