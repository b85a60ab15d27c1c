"""The whole product as a user starts it, `manage.py up`, and a browser in front of it."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from tests.processes import ROOT, wait_for

CHROMIUM_FLAGS = ["--no-sandbox", "--disable-quic", "--disable-background-networking", "--disable-component-update"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Site:
    """`with Site(folder, DATABASE_URL=…) as site:` runs `manage.py up` on a free port until the block ends."""

    def __init__(self, data_dir: Path, **environment: str) -> None:
        self.port = free_port()
        self.address = f"http://localhost:{self.port}"
        self.log_file = data_dir.parent / f"{data_dir.name}.log"
        self._environment = os.environ | {"DATA_DIR": str(data_dir), "PORT": str(self.port)} | environment
        self._environment.pop("DJANGO_SETTINGS_MODULE", None)

    def __enter__(self) -> "Site":
        with self.log_file.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "manage.py", "up"],
                cwd=ROOT,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_for(lambda: "answers on" in self.log() or self._process.poll() is not None, seconds=60, why="up answers")
        assert self._process.poll() is None, self.log()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise

    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    @property
    def setup_link(self) -> str:
        found = re.search(rf"{self.address}/setup/\S+", self.log())
        assert found, self.log()
        return found[0]


@contextmanager
def chromium() -> Iterator[Browser]:
    """The machine's own Chromium; `make test` installs it."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert program, "Chromium is not installed; `make test` installs it where it may"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=CHROMIUM_FLAGS)
        yield browser
        browser.close()


def watch_console(page: Page) -> list[str]:
    """What the browser complains about, script errors and breaches of the content policy among it."""
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    return complaints
