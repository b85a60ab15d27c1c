"""The file of a batch: its lines checked before any is run, and what has been answered so far beside it."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from webapp.api.fields import parse_json

MOST_LINES = 50_000
MOST_ERRORS = 50
LONGEST_ID = 512
OUTPUT, ERRORS = "output.jsonl", "errors.jsonl"


@dataclass(frozen=True)
class Line:
    """One request of a batch."""

    custom_id: str
    body: dict[str, Any]


def check(path: Path, endpoint: str) -> tuple[int, list[dict[str, Any]]]:
    """How many requests there are, and what is wrong, line by line."""
    seen: set[str] = set()
    errors: list[dict[str, Any]] = []
    for number, text in _numbered(path):
        if len(seen) >= MOST_LINES:
            errors.append(_error("too_many_tasks", number, f"The file has more than {MOST_LINES} requests.", None))
            break
        problem = _problem(number, text, endpoint, seen)
        if problem and len(errors) < MOST_ERRORS:
            errors.append(problem)
    if not seen and not errors:
        errors.append(_error("empty_file", None, "The file has no requests.", None))
    return len(seen), errors


def lines(path: Path) -> Iterator[Line]:
    """The requests of a checked file."""
    for _, text in _numbered(path):
        found = parse_json(text)
        yield Line(found["custom_id"], found["body"])


def _numbered(path: Path) -> Iterator[tuple[int, str]]:
    with path.open(encoding="utf-8-sig", errors="replace", newline="\n") as file:
        for number, text in enumerate(file, start=1):
            if text.strip():
                yield number, text


def _problem(number: int, text: str, endpoint: str, seen: set[str]) -> dict[str, Any] | None:
    try:
        found = parse_json(text)
    except ValueError as error:
        return _error("invalid_json_line", number, f"This line is not JSON: {error}.", None)
    if not isinstance(found, dict):
        return _error("invalid_json_line", number, "This line is no JSON object.", None)
    name, body = found.get("custom_id"), found.get("body")
    named = isinstance(name, str) and 0 < len(name) <= LONGEST_ID
    twice = named and name in seen
    if named:
        seen.add(str(name))
    streams = isinstance(body, dict) and bool(body.get("stream"))
    faults = (
        (not named, "invalid_custom_id", "custom_id", f"must be a text of 1 to {LONGEST_ID} characters"),
        (twice, "duplicate_custom_id", "custom_id", f"is in the file twice: {str(name)[:80]!r}"),
        (found.get("method") != "POST", "invalid_method", "method", "must be POST"),
        (found.get("url") != endpoint, "mismatched_url", "url", f"must be {endpoint}, as the batch's endpoint"),
        (not isinstance(body, dict), "invalid_body", "body", "must be an object"),
        (streams, "invalid_body", "body.stream", "is not possible in a batch"),
    )
    wrong = next(((code, param, said) for is_wrong, code, param, said in faults if is_wrong), None)
    return _error(wrong[0], number, f"`{wrong[1]}` {wrong[2]}.", wrong[1]) if wrong else None


def _error(code: str, line: int | None, message: str, param: str | None) -> dict[str, Any]:
    return {"code": code, "line": line, "message": message, "param": param}


class Results:
    """What has been answered, on the disk line by line: a worker that is killed loses at most what it was writing."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.paths = {name: folder / name for name in (OUTPUT, ERRORS)}
        self.done: dict[str, set[str]] = {name: _mended(path) for name, path in self.paths.items()}
        self._files = {name: path.open("a", encoding="utf-8") for name, path in self.paths.items()}

    @property
    def completed(self) -> int:
        return len(self.done[OUTPUT])

    @property
    def failed(self) -> int:
        return len(self.done[ERRORS])

    def has(self, custom_id: str) -> bool:
        return any(custom_id in names for names in self.done.values())

    def add(self, name: str, entry: dict[str, Any]) -> None:
        self._files[name].write(json.dumps(entry, ensure_ascii=True) + "\n")
        self._files[name].flush()
        self.done[name].add(entry["custom_id"])

    def close(self) -> None:
        for file in self._files.values():
            file.close()


def _mended(path: Path) -> set[str]:
    """The requests that are answered. What cannot be read, such as what a killed worker left half written, goes."""
    if not path.exists():
        return set()
    whole = path.read_bytes()
    kept = {text: name for text in whole.splitlines(keepends=True) if (name := _answered(text))}
    if len(left := b"".join(kept)) < len(whole):
        aside = path.with_suffix(".mended")
        aside.write_bytes(left)
        aside.replace(path)
    return set(kept.values())


def _answered(text: bytes) -> str:
    """The request that this line answers; empty where it is no whole line of ours."""
    try:
        entry = json.loads(text) if text.endswith(b"\n") else None
    except ValueError:
        return ""
    name = entry.get("custom_id") if isinstance(entry, dict) else None
    return name if isinstance(name, str) else ""
