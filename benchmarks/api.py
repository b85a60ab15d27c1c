"""How many requests a second the API answers: two web workers of the real server on this machine."""

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx

from tests.e2e.site import free_port
from tests.processes import ROOT, Processes, wait_for

ADAPTERS = 20
REQUESTS = 3000
AT_ONCE = 16
WANTED = 200  # requests a second on /v1/models

FILL = """
import uuid
from tests.cast import make_cast
from webapp.accounts import keys
from webapp.adapters.models import Adapter, BaseModel
cast = make_cast()
cast.bob.last_team = cast.team
cast.bob.save()
base = BaseModel.objects.create(name="org/model", status="ready", source="hub")
for number in range({adapters}):
    Adapter.objects.create(team=cast.team, base_model=base, name=f"adapter {{number}}", weights_sha256="0" * 64)
print(keys.create(user=cast.bob, name="bench"))
"""


def serve(running: Processes) -> str:
    """The address of gunicorn as `manage.py up` starts it, with two workers."""
    port = free_port()
    running.environment |= {"PORT": str(port), "WEB_CONCURRENCY": "2", "API_REQUESTS_PER_MINUTE": "1000000"}
    config = ROOT / "webapp" / "system" / "gunicorn.py"
    running.start("web", sys.executable, "-m", "gunicorn", "-c", str(config), "webapp.asgi:application")
    address = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        try:
            return httpx.get(f"{address}/healthz").status_code == 200
        except httpx.HTTPError:
            return False

    wait_for(answers, why=running.log("web"))
    return address


def processor_seconds(running: Processes, program: str = "gunicorn") -> float:
    """What the web workers have used so far; it tells more than the clock where others use the machine too."""
    stats = [
        Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        for pid in running.leftovers(containing=program)
    ]
    return sum(int(one[11]) + int(one[12]) for one in stats) / os.sysconf("SC_CLK_TCK")


async def load(address: str, key: str) -> list[float]:
    """Seconds of each request, `AT_ONCE` under way all the time, each on a connection that stays.

    Written to the socket as it stands: an HTTP client would take more of the two cores than the server does.
    """
    host, port = address.removeprefix("http://").split(":")
    request = f"GET /v1/models HTTP/1.1\r\nHost: {host}:{port}\r\nAuthorization: Bearer {key}\r\n\r\n".encode()
    took: list[float] = []
    left = iter(range(REQUESTS))

    async def script(number: int) -> None:
        # One after the other, as people's scripts start: a worker that wakes takes all connections that wait.
        await asyncio.sleep(number * 0.02)
        reader, writer = await asyncio.open_connection(host, int(port))
        for _ in left:
            begun = time.perf_counter()
            writer.write(request)
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            assert head.startswith("http/1.1 200"), head
            await reader.readexactly(int(head.partition("content-length:")[2].split("\r\n", 1)[0]))
            took.append(time.perf_counter() - begun)
        writer.close()

    await asyncio.gather(*(script(number) for number in range(AT_ONCE)))
    return sorted(took)


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="lr-bench-") as folder, Processes(Path(folder)) as running:
        running.prepare()
        running.broker()
        command = [sys.executable, "manage.py", "shell", "-v", "0", "-c", FILL.format(adapters=ADAPTERS)]
        filled = subprocess.run(command, cwd=ROOT, env=running.environment, capture_output=True, text=True, check=True)
        address = serve(running)
        begun, used = time.perf_counter(), processor_seconds(running)
        took = asyncio.run(load(address, filled.stdout.split()[-1]))
        rate = REQUESTS / (time.perf_counter() - begun)
        each = (processor_seconds(running) - used) / REQUESTS * 1000
        p50, p99 = (took[int(len(took) * part)] * 1000 for part in (0.5, 0.99))
        print(f"/v1/models, {ADAPTERS + 1} models, {AT_ONCE} at once, two web workers, {os.cpu_count()} cores")
        print(f"{rate:.0f} requests/s (wanted {WANTED}), median {p50:.1f} ms, 99th {p99:.1f} ms")
        print(f"{each:.1f} ms of processor time each in the web workers; load of the machine {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
