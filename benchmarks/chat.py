"""What a chat over the API costs beyond the engine: the time to the first token, both ways in one run."""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.api import processor_seconds, serve
from tests.processes import ROOT, Processes
from tests.tiny import make_tiny_base
from trainer.engine import Engine, Request

TIMES = 60
WANTED = 10.0  # milliseconds
MESSAGES = [{"role": "user", "content": "cat"}]

FILL = """
from tests.cast import make_cast
from tests.make import make_base
from webapp.accounts import keys
cast = make_cast()
cast.bob.last_team = cast.team
cast.bob.save()
make_base(name="tiny", path={folder!r}, facts={{"context_length": 512}})
print(keys.create(user=cast.bob, name="bench"))
"""


def of_engine(folder: Path) -> list[float]:
    """Milliseconds from a conversation to the first token's text, by the engine alone."""
    engine = Engine(folder, dtype="float32")
    took = []
    for _ in range(TIMES):
        begun = time.perf_counter()
        prompt = engine._renderer.prompt_ids(MESSAGES)
        request = Request(prompt_ids=prompt, max_tokens=16, temperature=1.0)
        for number, _ in enumerate(engine.generate([request], lambda: False)):
            if number == 0:
                took.append((time.perf_counter() - begun) * 1000)
    return sorted(took[5:])


def over_api(address: str, key: str, *, tokens: int = 16) -> list[float]:
    """Milliseconds from a request to the first text in its stream; the first ones are warm-up."""
    body: dict[str, Any] = {"model": "tiny", "messages": MESSAGES, "max_tokens": tokens, "stream": True}
    body["logit_bias"] = {"2": -100}  # an end would bring no text
    return _timed(address, key, "POST /v1/chat/completions", json.dumps(body), until=_has_text)


def models_list(address: str, key: str) -> list[float]:
    """Milliseconds of the plainest request, with the same client."""
    return _timed(address, key, "GET /v1/models", "", until=lambda line: line.startswith("HTTP/1.1 200"))


def _timed(address: str, key: str, call: str, body: str, *, until: Callable[[str], bool]) -> list[float]:
    """Milliseconds from writing a request to the first line of its answer for which `until` holds, on one connection.

    By the socket itself: an HTTP client would add its own milliseconds.
    """
    host, port = address.removeprefix("http://").split(":")
    head = [f"{call} HTTP/1.1", f"Host: {host}:{port}", f"Authorization: Bearer {key}", f"Content-Length: {len(body)}"]
    request = "\r\n".join([*head, "Content-Type: application/json", "", body]).encode()
    took = []
    with socket.create_connection((host, int(port)), timeout=60) as connection, connection.makefile("rb") as answer:
        for _ in range(TIMES + 5):
            begun, first, left = time.perf_counter(), None, -1
            connection.sendall(request)
            while line := answer.readline().decode():
                if first is None and until(line):
                    first = time.perf_counter() - begun
                if line.lower().startswith("content-length:"):
                    left = int(line.split(":")[1])
                if left >= 0 and line == "\r\n":
                    answer.read(left)
                    break
                if line == "0\r\n":  # the last chunk of a stream
                    answer.readline()
                    break
            if first is not None:  # one token alone may be part of a character
                took.append(first * 1000)
    return sorted(took[5:])


def _has_text(line: str) -> bool:
    """Whether an event brings text; most of a stream's lines are none."""
    if not line.startswith("data: {"):
        return False
    choices = json.loads(line.removeprefix("data: "))["choices"]
    return bool(choices and choices[0]["delta"].get("content"))


def main() -> None:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory(prefix="lr-bench-") as folder, Processes(Path(folder)) as running:
        base = make_tiny_base(Path(folder) / "base")
        torch.set_num_threads(1)  # as the worker is told below
        alone = of_engine(base)  # before there is a worker that loads its libraries beside it
        running.environment |= {"CHAT_DTYPE": "float32"}
        running.prepare()
        running.broker()
        command = [sys.executable, "manage.py", "shell", "-v", "0", "-c", FILL.format(folder=str(base))]
        filled = subprocess.run(command, cwd=ROOT, env=running.environment, capture_output=True, text=True, check=True)
        running.worker("chat", concurrency=8)
        address, key = serve(running), filled.stdout.split()[-1]
        rows = {
            "the engine alone": alone,
            "over the API": over_api(address, key),
            "GET /v1/models": models_list(address, key),
        }
        begun = processor_seconds(running), processor_seconds(running, "celery")
        over_api(address, key, tokens=1)
        used = processor_seconds(running) - begun[0], processor_seconds(running, "celery") - begun[1]
    for name, took in rows.items():
        print(f"{name:20} median {median(took):5.1f} ms, best {took[0]:5.1f} ms")
    each = [one / (TIMES + 5) * 1000 for one in used]
    print(
        f"a whole answer of one token: {each[0]:.1f} ms of processor time in the web, {each[1]:.1f} in the chat worker"
    )
    more = median(rows["over the API"]) - median(rows["the engine alone"])
    least = rows["over the API"][0] - rows["the engine alone"][0]
    print(f"the API adds {more:.1f} ms (best: {least:.1f} ms; wanted {WANTED:g}); load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
