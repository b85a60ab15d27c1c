"""A real server on the database of the tests: gunicorn with its ASGI worker, one process, no broker."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import httpx
from django.conf import settings
from django.db import connection

from tests.e2e.site import free_port
from tests.processes import ROOT, wait_for


class LiveServer:
    """`with LiveServer(API_REQUESTS_PER_MINUTE="3") as server:` then `server.address`."""

    def __init__(self, **environment: str) -> None:
        self.port = free_port()
        self.address = f"http://localhost:{self.port}"
        self._environment = os.environ | {
            "DJANGO_SETTINGS_MODULE": "webapp.settings",
            "DATA_DIR": str(settings.DATA_DIR),
            "DATABASE_URL": database_url(),
            "REDIS_URL": "unix:///nowhere/lowrank.sock",  # a broker that is away fails no request
            "BASE_URL": self.address,
            "API_REQUESTS_PER_MINUTE": "0",
            **environment,
        }

    def __enter__(self) -> "LiveServer":
        self._log = tempfile.NamedTemporaryFile(prefix="lr-live-", suffix=".log")
        command = [sys.executable, "-m", "gunicorn", "webapp.asgi:application", "-k", "asgi"]
        command += ["-b", f"127.0.0.1:{self.port}", "--asgi-lifespan", "off", "--no-control-socket"]
        self._process = subprocess.Popen(
            [*command, "--graceful-timeout", "1", "--log-level", "warning"],
            cwd=ROOT,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )
        wait_for(self._answers, seconds=30, why="the server answers")
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        finally:
            if self._process.poll() is None:
                os.killpg(self._process.pid, signal.SIGKILL)
            self._log.close()

    def log(self) -> str:
        return Path(self._log.name).read_text(errors="replace")

    def _answers(self) -> bool:
        assert self._process.poll() is None, self.log()
        try:
            return httpx.get(f"{self.address}/v1/models", timeout=2).status_code == 401
        except httpx.HTTPError:
            return False


def database_url() -> str:
    """The one that the tests made, as a server of its own finds it."""
    values = connection.settings_dict
    if connection.vendor == "sqlite":
        return f"sqlite:///{values['NAME']}"
    login = f"{values['USER']}:{values['PASSWORD']}" if values["PASSWORD"] else values["USER"]
    return f"postgres://{login}@{values['HOST']}:{values['PORT']}/{values['NAME']}"
