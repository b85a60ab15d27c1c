"""A server that answers: gunicorn, a broker and a chat worker on the database of the tests."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from django.conf import settings

from tests.api.live import LiveServer, database_url
from tests.processes import ROOT, wait_for


class ChatWorker:
    """One chat worker; `kill()` ends it as the kernel does when memory runs out."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._environment = environment
        # Closed with the process: it is written to by several lives of a worker.
        self._log = tempfile.NamedTemporaryFile(prefix="lr-chat-", suffix=".log")  # noqa: SIM115
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "celery", "-A", "webapp", "worker", "-Q", "chat", "-n", "chat@here"]
        before = self.log().count(" ready.")
        self._process = subprocess.Popen(
            [*command, "-P", "threads", "-c", "8", "--without-gossip", "--without-mingle", "-l", "INFO"],
            cwd=ROOT,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
        )
        wait_for(lambda: self.log().count(" ready.") > before, seconds=240, why="the chat worker is ready")

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self.kill()

    def log(self) -> str:
        return Path(self._log.name).read_text(errors="replace")


class Answering:
    """`address` of the server, and its worker."""

    def __init__(self, server: LiveServer, worker: ChatWorker) -> None:
        self.server, self.worker, self.address = server, worker, server.address


@contextmanager
def answering_server(broker: str) -> Iterator[Answering]:
    with LiveServer(REDIS_URL=broker) as server:
        environment = server._environment | {"REDIS_URL": broker, "CHAT_DTYPE": "float32", "OMP_NUM_THREADS": "1"}
        worker = ChatWorker({"DATABASE_URL": database_url(), "DATA_DIR": str(settings.DATA_DIR)} | environment)
        try:
            yield Answering(server, worker)
        finally:
            worker.stop()
            sys.stdout.write(worker.log())  # shown when a test fails
