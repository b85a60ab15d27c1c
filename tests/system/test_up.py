"""`manage.py up` as a whole: it starts, answers, heals itself, stops in order, and leaves nothing behind."""

import os
import re
import signal
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import redis

from tests.processes import Processes, wait_for
from webapp.env import embedded_socket

pytestmark = pytest.mark.chaos

PORT = 8154
ADDRESS = f"http://localhost:{PORT}"


class Up:
    """One `up` on a data folder, its log and what it started."""

    def __init__(self, folder: Path, *, port: int = PORT) -> None:
        self.processes = Processes(folder, REDIS_URL="", SECRET_KEY="", PORT=str(port), BASE_URL="")
        self.folder = folder

    def start(self, name: str = "up") -> None:
        self.processes.start(name, sys.executable, "manage.py", "up")

    def wait_for_page(self) -> None:
        wait_for(lambda: answers("/healthz") or self.processes.ended("up"), seconds=60, why=self.log())
        assert not self.processes.ended("up"), self.log()

    def wait_for_workers(self) -> None:
        for name in ("gpu", "chat", "default"):
            wait_for(lambda name=name: f"{name}@" in self.log() and " ready." in self.log(), seconds=60, why=self.log())
        wait_for(lambda: self.log().count(" ready.") >= 3, seconds=60, why=self.log())

    def log(self, name: str = "up") -> str:
        return self.processes.log(name)

    def left(self, *, containing: str = "") -> list[int]:
        """Ids of what `up` started and still lives. Valkey writes its title over the mark that the others carry."""
        return sorted({*self.processes.leftovers(containing=containing), *self._brokers(containing)})

    def _brokers(self, containing: str) -> list[int]:
        titles = {int(folder.name): title_of(folder) for folder in Path("/proc").glob("[0-9]*")}
        ours = f"unixsocket:{embedded_socket(self.folder)}"
        return [pid for pid, title in titles.items() if ours in title and containing in title]

    def pid(self, containing: str) -> int:
        """The first process whose command contains a word: of a master and its workers, the master."""
        found = self.left(containing=containing)
        assert found, f"nothing runs {containing}"
        return found[0]

    def valkey(self) -> redis.Redis:
        return redis.Redis(unix_socket_path=str(embedded_socket(self.folder)), decode_responses=True)


def title_of(process: Path) -> str:
    try:
        return (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def answers(path: str) -> bool:
    try:
        return httpx.get(f"{ADDRESS}{path}", timeout=5).is_success
    except httpx.HTTPError:
        return False


@contextmanager
def running(folder: Path) -> Iterator[Up]:
    up = Up(folder)
    with up.processes:
        up.start()
        up.wait_for_page()
        up.wait_for_workers()
        yield up


def ended_within(up: Up, seconds: float) -> float:
    begun = time.monotonic()
    wait_for(lambda: up.processes.ended("up"), seconds=seconds, why=up.log())
    return time.monotonic() - begun


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    with running(tmp_path_factory.mktemp("up")) as up:
        yield up


def test_page_answers_and_the_log_names_the_address(up: Up) -> None:
    assert httpx.get(f"{ADDRESS}/", timeout=5).status_code == 302
    assert f"answers on {ADDRESS}" in up.log()
    link = re.search(rf"{ADDRESS}/setup/\S+", up.log())
    assert link
    assert httpx.get(link[0], timeout=5).status_code == 200


def test_static_files_are_hashed_compressed_and_kept_by_browsers(up: Up) -> None:
    page = httpx.get(f"{ADDRESS}/accounts/login/", timeout=5).text
    found = re.search(r'href="(/static/css/[^"]+\.[0-9a-f]{12}\.css)"', page)
    assert found, page
    sheet = httpx.get(f"{ADDRESS}{found[1]}", timeout=5)
    assert sheet.status_code == 200
    assert "immutable" in sheet.headers["cache-control"]
    assert sheet.headers["content-encoding"] in ("gzip", "br", "zstd")


def test_every_line_of_the_log_says_who_speaks(up: Up) -> None:
    ours = re.compile(r"(web|gpu|chat|default|schedule|valkey|lowrank) *│ |  \S|$")
    strange = [line for line in up.log().splitlines() if not ours.match(line)]
    assert strange == []
    assert "\x1b" not in up.log()
    assert "Traceback" not in up.log()


def test_everything_is_private(up: Up) -> None:
    assert stat.S_IMODE((up.folder / "secret_key").stat().st_mode) == 0o600
    assert stat.S_IMODE(embedded_socket(up.folder).parent.stat().st_mode) == 0o700
    assert not (up.folder / "gunicorn.ctl").exists()


def test_server_is_ready_once_a_worker_lives(up: Up) -> None:
    wait_for(lambda: answers("/readyz"), seconds=20, why=httpx.get(f"{ADDRESS}/readyz").text)


def test_second_up_on_the_same_folder_is_refused(up: Up) -> None:
    up.start("second")
    assert up.processes.running.pop("second").wait(30) == 1
    said = up.log("second")
    pid = up.processes.running["up"].pid
    assert f"is running on {up.folder} already: process {pid}, {ADDRESS}" in said
    assert "Traceback" not in said


def test_port_in_use_is_named(up: Up, tmp_path: Path) -> None:
    other = Up(tmp_path)
    with other.processes:
        other.start()
        assert other.processes.running.pop("up").wait(30) == 1
        assert f"Cannot listen on port {PORT} on 127.0.0.1: Address already in use" in other.log()
        assert other.left() == []


def test_killed_web_starts_again(up: Up) -> None:
    os.kill(up.pid("gunicorn"), signal.SIGKILL)
    wait_for(lambda: "web was killed by SIGKILL" in up.log(), seconds=5, why=up.log())
    wait_for(lambda: answers("/healthz"), seconds=20, why=up.log())


def test_killed_broker_starts_again_with_its_data(up: Up) -> None:
    up.valkey().set("kept", "yes")
    time.sleep(1.3)  # written down every second
    os.kill(up.pid("valkey-server"), signal.SIGKILL)
    wait_for(lambda: "valkey was killed by SIGKILL" in up.log(), seconds=5, why=up.log())
    wait_for(lambda: socket_answers(up), seconds=10, why=up.log())
    assert up.valkey().get("kept") == "yes"
    wait_for(lambda: answers("/readyz"), seconds=20, why="the server is ready again")


def socket_answers(up: Up) -> bool:
    try:
        return bool(up.valkey().ping())
    except redis.RedisError:
        return False


def test_sigterm_stops_in_order_within_15_seconds(up: Up) -> None:
    with httpx.stream("GET", f"{ADDRESS}/healthz", timeout=5):
        up.processes.running["up"].send_signal(signal.SIGTERM)
        took = ended_within(up, 20)
    assert took < 15, up.log()
    assert up.processes.running.pop("up").returncode == 0
    stops = re.findall(r"lowrank │ (stopp\w+.*)", up.log())
    assert stops == ["stopping web", "stopping default, gpu, chat, schedule", "stopping valkey", "stopped"]
    assert up.left() == []


def test_nothing_is_left_after_kill_9(tmp_path: Path) -> None:
    with running(tmp_path) as up:
        up.valkey().set("kept", "yes")
        up.processes.kill("up")
        wait_for(lambda: not up.left(), seconds=5, why=f"{up.left()} are left")
        up.start()  # the lock, the port and the socket are free at once
        up.wait_for_page()
        assert up.valkey().get("kept") == "yes"


def test_second_ctrl_c_kills_at_once(tmp_path: Path) -> None:
    with running(tmp_path) as up:
        os.kill(up.pid("-Q gpu"), signal.SIGSTOP)  # would take its whole time
        up.processes.running["up"].send_signal(signal.SIGINT)
        wait_for(lambda: "stopping default" in up.log(), seconds=10, why=up.log())
        up.processes.running["up"].send_signal(signal.SIGINT)
        assert ended_within(up, 10) < 3
        assert up.left() == []
