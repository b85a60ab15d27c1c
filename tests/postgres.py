"""A real PostgreSQL of a test's own: a fresh cluster in a temporary folder, run by a user that is not root."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

from tests.processes import wait_for


def program(name: str) -> str:
    """A program of PostgreSQL; Debian keeps them out of PATH."""
    found = shutil.which(name) or max(map(str, Path("/usr/lib/postgresql").glob(f"*/bin/{name}")), default=None)
    assert found, f"{name} is not installed; `make test` installs it"
    return found


class Postgres:
    """`with Postgres(port) as server:` then `server.url`."""

    def __init__(self, port: int, *, password: str = "secret") -> None:
        self.port = port
        self.password = password
        self.url = f"postgres://lowrank:{password}@127.0.0.1:{port}/lowrank"
        # The server refuses to run as root.
        self.account = "nobody" if os.getuid() == 0 else pwd.getpwuid(os.getuid()).pw_name

    def __enter__(self) -> "Postgres":
        self.folder = Path(tempfile.mkdtemp(prefix="lr-postgres-"))
        words = self.folder / "password"
        words.write_text(self.password)
        if os.getuid() == 0:
            shutil.chown(self.folder, self.account)
            shutil.chown(words, self.account)
        data = str(self.folder / "data")
        self._run("initdb", "-D", data, "-U", "lowrank", "--auth=scram-sha-256", f"--pwfile={words}", "--no-sync")
        self._server = subprocess.Popen(
            [program("postgres"), "-D", data, "-p", str(self.port), "-h", "127.0.0.1", "-k", str(self.folder), "-F"],
            user=self._as(),
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            stderr=(self.folder / "log").open("wb"),
            start_new_session=True,
        )
        wait_for(self._listens, why=f"PostgreSQL listens: {(self.folder / 'log').read_text()}")
        self.environment = {
            **{"PGPASSWORD": self.password, "PGUSER": "lowrank", "PGDATABASE": "lowrank"},
            **{"PGHOST": "127.0.0.1", "PGPORT": str(self.port)},
        }
        wait_for(lambda: self._run("pg_isready", check=False) == 0, why="PostgreSQL is ready")
        self._run("createdb", "--maintenance-db=postgres", "lowrank")
        return self

    def __exit__(self, *_: object) -> None:
        self._server.send_signal(2)  # fast shutdown
        try:
            self._server.wait(20)
        except subprocess.TimeoutExpired:
            self._server.kill()
            self._server.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _as(self) -> str | None:
        return self.account if os.getuid() == 0 else None

    def _run(self, name: str, *arguments: str, check: bool = True) -> int:
        environment = {**os.environ, **getattr(self, "environment", {})}
        done = subprocess.run(
            [program(name), *arguments],
            user=self._as(),
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0 or not check, f"{name}: {done.stdout}{done.stderr}"
        return done.returncode

    def _listens(self) -> bool:
        assert self._server.poll() is None, (self.folder / "log").read_text()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0
