"""A real Redis of a test's own, with a password, as an operator would run it beside the product."""

import shutil
import subprocess
import tempfile

import redis

from tests.processes import wait_for


class RedisServer:
    """`with RedisServer(port) as server:` then `server.url`."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"redis://:secret@127.0.0.1:{port}/0"

    def __enter__(self) -> "RedisServer":
        program = shutil.which("redis-server")
        assert program, "redis-server is not installed; `make test` installs it"
        self._folder = tempfile.mkdtemp(prefix="lr-redis-")
        options = ("--port", str(self.port), "--bind", "127.0.0.1", "--dir", self._folder, "--requirepass", "secret")
        self._server = subprocess.Popen(
            [program, *options, "--appendonly", "yes", "--save", "", "--maxmemory-policy", "noeviction"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        wait_for(self._answers, seconds=10, why="Redis answers")
        return self

    def __exit__(self, *_: object) -> None:
        self._server.terminate()
        self._server.wait(10)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _answers(self) -> bool:
        try:
            return bool(redis.Redis.from_url(self.url).ping())
        except redis.ConnectionError:
            return False
