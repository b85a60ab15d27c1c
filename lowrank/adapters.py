"""`lowrank adapters`: list them, take one home as a folder that plain PEFT loads, bring one in."""

import argparse
import shutil
import tempfile
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any

from lowrank.client import Client, segment
from lowrank.failures import OK, ClientError, WrongUse
from lowrank.login import read_login
from lowrank.printing import Progress, moment_text, say, size_text, table, write, write_json
from lowrank.uploading import send

PIECE = 1 << 20
NEEDED = "adapter_config.json"
ENDINGS = (".json", ".jsonl", ".jinja", ".md", ".safetensors", ".bin")  # with the last the server says what to do
HOUR = 3600


def list_all(given: argparse.Namespace) -> int:
    found = [one for one in Client(read_login(given.team)).get("/models")["data"] if one["parent"]]
    if given.json:
        for model in found:
            write_json(model)
        return OK
    rows = [(one["id"], one["root"], one["owned_by"], moment_text(one["created"])) for one in found]
    table(("model", "base model", "team", "made"), rows)
    return OK


def pull(given: argparse.Namespace) -> int:
    """Download into a folder, or as the zip it comes as; either appears whole or not at all."""
    client = Client(read_login(given.team))
    out = Path(given.out) if given.out else None
    if out and out.exists():
        raise WrongUse(f"{out} is there already. Name another place with --out.")
    parent = out.parent if out else Path()
    if not parent.is_dir():
        raise WrongUse(f"There is no folder {parent}.")
    try:
        with tempfile.TemporaryDirectory(prefix=".lowrank-", dir=parent) as folder:
            place = _placed(Path(folder), _download(client, given.model, Path(folder) / "adapter.zip"), given, out)
    except (OSError, zipfile.BadZipFile) as error:
        raise ClientError(f"The adapter could not be written: {error}.") from error
    if given.json:
        write_json({"model": given.model, "path": str(place)})
    else:
        write(str(place))
    return OK


def _download(client: Client, model: str, file: Path) -> Path:
    """What was named by the model's id; a checkpoint has a name of its own."""
    progress = Progress()
    with client.open("GET", f"/adapters/{segment(model)}/content") as answer, file.open("wb") as target:
        while piece := answer.read(PIECE):
            target.write(piece)
            progress.show(f"{size_text(target.tell())} received")
        size = target.tell()
    progress.end(f"{size_text(size)} received")
    return file


def _placed(folder: Path, archive: Path, given: argparse.Namespace, out: Path | None) -> Path:
    """Unpack it beside its place, look whether it is an adapter, and move it there in one step."""
    with zipfile.ZipFile(archive) as packed:
        if packed.testzip() is not None:
            raise ClientError("The adapter arrived damaged. Pull it again.")
        names = [PurePosixPath(name) for name in packed.namelist()]
        tops = {name.parts[0] for name in names}
        if len(tops) != 1 or any(name.is_absolute() or ".." in name.parts for name in names):
            raise ClientError("What arrived is no adapter. Is the address that of a Lowrank server?")
        top = tops.pop()
        place = out or Path(f"{top}.zip" if given.zip else top)
        if place.exists():
            raise WrongUse(f"{place} is there already. Name another place with --out.")
        if not given.zip:
            packed.extractall(folder / "unpacked")
    made = archive if given.zip else folder / "unpacked" / top
    if not given.zip and not (made / NEEDED).is_file():
        raise ClientError(f"What arrived has no {NEEDED}: it is no adapter.")
    shutil.move(made, place)
    return place


def push(given: argparse.Namespace) -> int:
    """Send a folder's files of an adapter, or an archive, and have the server take it in."""
    client, path = Client(read_login(given.team)), Path(given.path)
    if path.is_dir():
        with tempfile.TemporaryDirectory(prefix="lowrank-") as folder:
            made = _import(client, _packed(path, Path(folder) / f"{path.resolve().name}.zip"), given)
    elif path.is_file():
        made = _import(client, path, given)
    else:
        raise WrongUse(f"There is no file or folder {given.path}.")
    if given.json:
        write_json(made)
        return OK
    write(made["id"])
    there = "is imported" if made["is_new"] else "was there already, under this name"
    say(f"{made['name']} {there}: r {made['r']}, on {made['base_model']}. {made['url']}")
    return OK


def _packed(folder: Path, archive: Path) -> Path:
    """What belongs to an adapter, and nothing else that lies there, such as an optimiser's state."""
    if not (folder / NEEDED).is_file():
        raise WrongUse(f"There is no {NEEDED} in {folder}: it is no adapter that PEFT saved.")
    try:
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as packed:
            for file in sorted(one for one in folder.iterdir() if one.suffix in ENDINGS and one.is_file()):
                packed.write(file, f"{archive.stem}/{file.name}")
    except (OSError, ValueError) as error:
        raise WrongUse(f"{folder} cannot be read: {error}.") from error
    return archive


def _import(client: Client, file: Path, given: argparse.Namespace) -> Any:
    """In parts where it is large; the server keeps what was sent only until it is an adapter."""
    sent = send(client, file, purpose="user_data", seconds=HOUR)["id"]
    try:
        fields = {"file_id": sent, "base_model": given.base, "name": given.name}
        return client.send_form("/adapters", {name: value for name, value in fields.items() if value})
    finally:
        client.delete(f"/files/{segment(sent)}")
