"""Streams while the server is there and silent: readers are told, writers do not wait, and both go on afterwards."""

import asyncio
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

import pytest
from kombu import Connection
from kombu.exceptions import OperationalError
from pytest_django.fixtures import Settings

from tests.processes import valkey_binary, wait_for
from webapp.celery import app
from webapp.common import streams
from webapp.env import broker_urls


@pytest.fixture
def server(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator["subprocess.Popen[bytes]"]:
    """A Valkey of this test's own, which it may stop and continue."""
    folder = Path(tempfile.mkdtemp(prefix="lr-"))  # the path of a unix socket must be short
    command = [valkey_binary(), "--port", "0", "--unixsocket", str(folder / "v.sock"), "--dir", str(folder)]
    process = subprocess.Popen([*command, "--save", ""], stdout=subprocess.DEVNULL)
    wait_for((folder / "v.sock").exists, seconds=10, every=0.01, why="the server answers")
    settings.CACHE_URL = f"unix://{folder / 'v.sock'}"
    monkeypatch.setattr(streams, "ANSWER_SECONDS", 0.2)
    monkeypatch.setattr(streams, "STUCK_SECONDS", 0.2)
    monkeypatch.setattr(streams, "AWAY_SECONDS", 0.5)
    streams._client.cache_clear()
    yield process
    streams._client.cache_clear()
    process.kill()
    process.wait()
    shutil.rmtree(folder)


async def test_readers_are_told_that_nothing_comes(server: "subprocess.Popen[bytes]") -> None:
    assert streams.append("s", {"n": "1"})
    entries = streams.follow("s", idle=0.05)
    async with asyncio.timeout(5):
        first = await anext(entries)
        assert first
        assert first[1] == {"n": "1"}
        assert await anext(entries) is None
        server.send_signal(signal.SIGSTOP)
        for _ in range(2):
            assert await anext(entries) is None
        server.send_signal(signal.SIGCONT)
        assert await anext(entries) is None
        assert streams.append("s", {"n": "2"})
        found = None
        while found is None:
            found = await anext(entries)
        assert found[1] == {"n": "2"}
        await entries.aclose()


def test_a_reader_that_leaves_while_it_connects_is_gone(server: "subprocess.Popen[bytes]") -> None:
    async def read() -> None:
        async with aclosing(streams.follow("quiet")) as entries:
            async for _ in entries:
                pass

    async def main() -> None:
        for number in range(60):
            reader = asyncio.create_task(read())
            await asyncio.sleep(number % 12 * 0.0005)
            reader.cancel()
            done, _ = await asyncio.wait([reader], timeout=0.9)  # before its read comes back by itself
            assert done, f"after {number % 12 * 0.5} ms"

    asyncio.run(main())


def test_a_count_goes_on_is_forgotten_and_does_without_the_server(server: "subprocess.Popen[bytes]") -> None:
    assert [streams.tally("made", seconds=1) for _ in range(3)] == [1, 2, 3]
    wait_for(lambda: streams.tally("made", seconds=1) == 1, seconds=5, every=0.2, why="it is forgotten")
    server.send_signal(signal.SIGSTOP)
    assert streams.tally("made", seconds=1) is None
    server.send_signal(signal.SIGCONT)


def test_writers_wait_once_and_not_for_every_entry(server: "subprocess.Popen[bytes]") -> None:
    assert streams.append("s", {"n": "1"})
    server.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    assert not any(streams.append("s", {"n": str(number)}) for number in range(50))
    assert time.monotonic() - began < 0.45  # one answer awaited, not fifty
    server.send_signal(signal.SIGCONT)
    wait_for(lambda: streams.append("s", {"n": "2"}), seconds=5, every=0.02, why="it is tried again")


def test_a_server_that_was_started_anew_is_written_to_at_once(server: "subprocess.Popen[bytes]") -> None:
    assert streams.append("s", {"n": "1"})
    streams._client().client_kill_filter(_type="normal", skipme=False)  # the idle connection is broken
    assert streams.append("s", {"n": "2"})


def test_a_doorbell_gives_up_soon(server: "subprocess.Popen[bytes]", settings: Settings) -> None:
    options = settings.CELERY_BROKER_TRANSPORT_OPTIONS
    assert options["socket_timeout"] <= 3
    url = broker_urls(settings.CACHE_URL)[0]
    with Connection(url, transport_options=options | {"socket_timeout": 0.2}) as connection:
        app.send_task("nothing", connection=connection, retry=False)
        server.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        with pytest.raises(OperationalError):
            app.send_task("nothing", connection=connection, retry=False)
        assert time.monotonic() - began < 0.45  # the socket's timeout and no retries
        server.send_signal(signal.SIGCONT)


def test_whether_it_answers_is_known_soon(server: "subprocess.Popen[bytes]") -> None:
    assert streams.ping()
    server.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    assert not streams.ping()
    assert time.monotonic() - began < 0.45
    server.send_signal(signal.SIGCONT)
    assert streams.ping()


async def test_readers_stay_connected_for_the_next_stream(server: "subprocess.Popen[bytes]") -> None:
    """Those that were cut off while they read as well; more than a few that read at once are let go."""

    async def first_of(stream: str) -> str:
        async with aclosing(streams.follow(stream, idle=0.05)) as entries:
            found = await anext(entries)
            assert found
            assert await anext(entries) is None
            return found[1]["n"]

    names = [str(number) for number in range(streams.MOST_IDLE + 5)]
    for name in names:
        assert streams.append(f"s{name}", {"n": name})
    async with asyncio.timeout(20):
        assert await first_of("s0") == "0"
        clients = await _clients()
        for _ in range(5):
            assert await first_of("s1") == "1"
        assert await _clients() == clients
        reading = asyncio.ensure_future(anext(streams.follow("nothing", idle=0.05)))
        await asyncio.sleep(0.01)
        reading.cancel()
        assert await asyncio.gather(*(first_of(f"s{name}") for name in names)) == names
        assert await _clients() <= streams.MOST_IDLE + 3


async def _clients() -> int:
    return len(streams._client().client_list())  # type: ignore[arg-type] # not async
