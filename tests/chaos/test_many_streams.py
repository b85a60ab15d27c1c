"""Many pages that follow a job hold no database connection and do not slow the server down."""

import asyncio
import contextlib
import time
from pathlib import Path

import httpx
import pytest
from django.conf import settings
from django.db import connection

from tests.cast import make_cast
from tests.make import make_job, make_job_event
from tests.processes import Processes, wait_for

pytestmark = [pytest.mark.chaos, pytest.mark.django_db(transaction=True)]

PORT = 8141
STREAMS = 50


def held(processes: Processes, file: str) -> int:
    """Open handles of the web's processes on files of a name."""
    handles = [one for pid in processes.leftovers(containing="gunicorn") for one in Path(f"/proc/{pid}/fd").iterdir()]
    found = 0
    for handle in handles:
        with contextlib.suppress(OSError):  # closed meanwhile
            found += handle.readlink().name.startswith(file)
    return found


@pytest.mark.skipif(connection.vendor != "sqlite", reason="counts handles of the database's file")
def test_many_streams() -> None:
    cast = make_cast()
    job = make_job(cast.team)
    make_job_event(job, "log", text="here", level="info")
    cookies = {settings.SESSION_COOKIE_NAME: cast.client("vera").cookies[settings.SESSION_COOKIE_NAME].value}
    name = Path(connection.settings_dict["NAME"])
    with Processes(Path(settings.DATA_DIR), DATABASE_URL=f"sqlite:///{name}") as running:
        running.manage("collectstatic", "--noinput", "--verbosity", "0")
        running.broker()
        address = running.web(PORT)
        seen, slowest = asyncio.run(
            watch(f"{address}/jobs/{job.pk}/events/", f"{address}/healthz", cookies, running, name)
        )
        assert seen == STREAMS
        assert slowest < 0.5
    assert running.leftovers() == []


async def watch(
    stream: str, ping: str, cookies: dict[str, str], running: Processes, database: Path
) -> tuple[int, float]:
    """How many of the streams brought their event, and the slowest of the answers meanwhile."""
    seen: list[str] = []

    async def follow(client: httpx.AsyncClient) -> None:
        async with client.stream("GET", stream) as response:
            async for line in response.aiter_lines():
                if line.startswith("event: "):
                    seen.append(line)

    limits = httpx.Limits(max_connections=STREAMS + 10)
    async with httpx.AsyncClient(cookies=cookies, timeout=30, limits=limits) as client:
        following = [asyncio.create_task(follow(client)) for _ in range(STREAMS)]
        await asyncio.to_thread(lambda: wait_for(lambda: len(seen) == STREAMS, seconds=30, why="every stream speaks"))
        await asyncio.to_thread(
            lambda: wait_for(lambda: held(running, database.name) == 0, seconds=5, why="none holds")
        )
        slowest = 0.0
        for _ in range(20):
            began = time.monotonic()
            await client.get(ping)
            slowest = max(slowest, time.monotonic() - began)
        for one in following:
            one.cancel()
        await asyncio.gather(*following, return_exceptions=True)
    return len(seen), slowest
