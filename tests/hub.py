"""A hub on this machine that stands in for the public one: it answers what the hub's own library asks for."""

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha1, sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class FolderFiles(Mapping[str, bytes]):
    """The files that lie in a folder now, by their paths in it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __getitem__(self, name: str) -> bytes:
        if name not in iter(self):
            raise KeyError(name)
        return (self._folder / name).read_bytes()

    def __iter__(self) -> Iterator[str]:
        return (one.relative_to(self._folder).as_posix() for one in self._folder.rglob("*") if one.is_file())

    def __len__(self) -> int:
        return sum(1 for _ in self)


class Hub:
    """Publishes one repository, owner/name, of models or datasets. `files` by path; `asked`: what it was asked for."""

    def __init__(self, kind: str, name: str, files: Mapping[str, bytes]) -> None:
        self.kind, self.name = kind, name
        self.files = files
        self.asked: list[str] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:  # noqa: N802 - the name the server calls
                hub.answer(self)

            do_GET = do_HEAD  # noqa: N815

            def log_message(self, format: str, *args: object) -> None:
                """Tests are quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path = unquote(request.path.split("?")[0])
        self.asked.append(path)
        entries = [entry(name, data) for name, data in sorted(self.files.items())]
        home = self.name if self.kind == "models" else f"{self.kind}/{self.name}"
        _, resolved, place = path.partition(f"/{home}/resolve/")
        name = place.partition("/")[2]
        if path.startswith(f"/api/{self.kind}/{self.name}/tree/"):
            self.send(request, json.dumps(entries).encode())
        elif path.startswith(f"/api/{self.kind}/{self.name}"):
            siblings = [{"rfilename": one["path"], **one} for one in entries]
            self.send(request, json.dumps({"id": self.name, "sha": COMMIT, "siblings": siblings}).encode())
        elif resolved and name in self.files:
            self.send(request, self.files[name], ETag=f'"{entry(name, self.files[name])["blobId"]}"')
        else:
            self.send(request, b"", status=404, **{"X-Error-Code": "RepoNotFound"})

    def send(self, request: BaseHTTPRequestHandler, data: bytes, status: int = 200, **headers: str) -> None:
        request.send_response(status)
        for name, value in {"Content-Length": str(len(data)), "X-Repo-Commit": COMMIT, **headers}.items():
            request.send_header(name, value)
        request.end_headers()
        if request.command == "GET":
            request.wfile.write(data)


def entry(name: str, data: bytes) -> dict[str, Any]:
    """What the hub says of a file."""
    blob = sha1(b"blob %d\0" % len(data) + data).hexdigest()
    known: dict[str, Any] = {"type": "file", "path": name, "size": len(data), "oid": blob, "blobId": blob}
    if name.endswith(".safetensors"):
        digest = sha256(data).hexdigest()
        known |= {"blobId": digest, "lfs": {"oid": digest, "sha256": digest, "size": len(data), "pointerSize": 130}}
    return known


@contextmanager
def running_hub(kind: str, name: str, files: Mapping[str, bytes]) -> Iterator[Hub]:
    hub = Hub(kind, name, files)
    yield hub
    hub.server.shutdown()
    hub.server.server_close()
