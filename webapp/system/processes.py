"""The programs that make up Lowrank on one machine: their commands, and the order in which they stop."""

import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

from django.conf import settings

from webapp.system import valkey

# Celery warns each time that it runs as root. Nothing here unpickles, so in a container of one's own it is harmless.
QUIET_ROOT = "ignore:You're running the worker with superuser privileges"


class Stage(IntEnum):
    """Stages stop one after the other: no new requests, then no new work, then the broker that both need."""

    WEB = 1
    WORKERS = 2
    BROKER = 3


@dataclass(frozen=True)
class Program:
    """A program to keep running. `killed_by` reaches it when its supervisor dies without a word."""

    name: str
    command: tuple[str, ...]
    stage: Stage
    killed_by: signal.Signals = signal.SIGKILL
    before: Callable[[], None] | None = None  # runs before every start
    hides: str | None = None  # lines with this in them say nothing that a person here could use


def web() -> Program:
    command = (sys.executable, "-m", "gunicorn", "-c", "python:webapp.system.gunicorn", "webapp.asgi:application")
    return Program("web", command, Stage.WEB)


def worker(queue: str, *, concurrency: int) -> Program:
    """A Celery worker on one queue. Threads: the heavy work of every task is in a child process or in torch."""
    return Program(
        queue,
        (
            *(sys.executable, "-W", QUIET_ROOT, "-m", "celery", "--quiet", "-A", "webapp", "worker"),
            *("-Q", queue, "-n", f"{queue}@%h", "-P", "threads", "-c", str(concurrency)),
            *("-l", settings.LOG_LEVEL, "--without-gossip", "--without-mingle", "--without-heartbeat"),
        ),
        Stage.WORKERS,
    )


def scheduler() -> Program:
    """Exactly one is needed; a second one would do no harm."""
    return Program("schedule", (sys.executable, "manage.py", "schedule"), Stage.WORKERS)


def workers() -> list[Program]:
    return [
        worker("default", concurrency=4),
        worker("gpu", concurrency=1),
        worker("chat", concurrency=8),
        scheduler(),
    ]


def broker() -> Program:
    """The embedded Valkey. When its supervisor is killed it gets SIGTERM, so that it writes what it holds."""
    folder, socket = settings.DATA_DIR / "valkey", settings.VALKEY_SOCKET

    def make_way() -> None:
        valkey.make_way(folder, socket)

    command = tuple(valkey.server_command(folder, socket))
    return Program(
        "valkey", command, Stage.BROKER, killed_by=signal.SIGTERM, before=make_way, hides="Memory overcommit"
    )
