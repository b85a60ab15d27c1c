"""`lowrank datasets`: check a file of rows, send it, list what the team has."""

import argparse
import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from lowrank.client import Client, segment
from lowrank.failures import FAILED, OK, ClientError, WrongUse
from lowrank.login import read_login
from lowrank.printing import Progress, moment_text, say, size_text, table, write, write_json
from lowrank.uploading import send

MOST_SHOWN = 20  # bad lines
HOUR = 3600
LOCAL = ("orjson", "pyarrow")  # what the local check reads and writes with
STATES = {"processed": "ready", "error": "rejected", "uploaded": "being checked"}


def check(given: argparse.Namespace) -> int:
    """0 when the file can be trained on. With the trainer beside it nothing leaves this machine."""
    file = existing(given.file)
    here = all(importlib.util.find_spec(name) for name in ("trainer", *LOCAL)) and not given.remote
    return _check_here(file, given) if here else _check_there(file, given)


def existing(text: str) -> Path:
    file = Path(text)
    if not file.is_file():
        raise WrongUse(f"There is no file {text}.")
    return file


def _check_here(file: Path, given: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory(prefix="lowrank-check-") as folder:
        command = [sys.executable, "-m", "trainer", "check", str(file.resolve()), "--out", folder]
        root = Path(__file__).resolve().parent.parent
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
        report_file = Path(folder) / "report.json"
        if not report_file.is_file():
            raise ClientError(
                _said(done.stdout) or f"The check ended with code {done.returncode}: {done.stderr[-500:]}"
            )
        report = json.loads(report_file.read_text(encoding="utf-8"))
    good = not report["errors"] and done.returncode == OK
    if given.json:
        write_json(report)
        return OK if good else FAILED
    if good:
        write(f"{file}: {report['rows']} rows, {report.get('saw') or report['format']}")
        return OK
    write(f"{file} cannot be used as it is: {report.get('error_count') or len(report['errors'])} bad lines.")
    for error in report["errors"][:MOST_SHOWN]:
        where = ": ".join(filter(None, (f"Line {error['line']}", error.get("field", ""))))
        write(f"{where}: {error['problem']}. {error['fix']}")
    return FAILED


def _said(events: str) -> str:
    """What the check gave as its reason, as the last of its events."""
    for line in reversed(events.splitlines()):
        event = json.loads(line)
        if event.get("kind") == "failed":
            return f"{event['text']} {event.get('fix', '')}".strip()
    return ""


def _check_there(file: Path, given: argparse.Namespace) -> int:
    """The server looks at it; what was sent for that is deleted again."""
    client = Client(read_login(given.team))
    say(
        "The trainer is not installed here: the file is sent to the server for its check, and deleted there afterwards."
    )
    made = send(client, file, seconds=HOUR)
    try:
        found = wait_for_check(client, made["id"])
    finally:
        client.delete(f"/files/{segment(made['id'])}")
    return tell(found, str(file), as_json=given.json)


def push(given: argparse.Namespace) -> int:
    client = Client(read_login(given.team))
    made = send(client, existing(given.file))
    found = made if given.no_wait else wait_for_check(client, made["id"])
    return tell(found, made["id"], as_json=given.json)


def wait_for_check(client: Client, file_id: str) -> dict[str, Any]:
    """The file once the server has looked at every row."""
    progress, pause = Progress(), 0.1
    try:
        while True:
            found: dict[str, Any] = client.get(f"/files/{segment(file_id)}")
            if found["status"] != "uploaded":
                return found
            progress.show("The server checks the rows.")
            time.sleep(pause)
            pause = min(2.0, pause * 1.5)
    finally:
        progress.end()


def tell(file: dict[str, Any], name: str, *, as_json: bool) -> int:
    bad = file["status"] == "error"
    if as_json:
        write_json(file)
    elif bad:
        write(f"{name} cannot be used. {file['status_details']}")
    else:
        write(name)
        say(f"{file['filename']}, {size_text(file['bytes'])}: {STATES[file['status']]}.")
    return FAILED if bad else OK


def list_all(given: argparse.Namespace) -> int:
    client = Client(read_login(given.team))
    found = client.pages("/files", most=given.limit, purpose="fine-tune", limit=1000)
    if given.json:
        for file in found:
            write_json(file)
        return OK
    rows = [(one["id"], STATES[one["status"]], size_text(one["bytes"]), moment_text(one["created_at"]), one["filename"])
            for one in found]  # fmt: skip
    table(("id", "state", "size", "sent", "file"), rows)
    return OK
