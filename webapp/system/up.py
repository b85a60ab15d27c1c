"""Starts everything on this machine and keeps it running: what `manage.py up` does."""

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from django.conf import settings
from django.db import connections

from webapp.accounts.services import setup_link
from webapp.env import EVERY_INTERFACE, LOCAL_NAMES
from webapp.system import prepare, processes, valkey
from webapp.system.supervise import Child, Log, Supervisor
from webapp.version import version

WEB_SECONDS = 60.0
PORT_SECONDS = 3.0  # children of an `up` that was killed a moment ago need one to go


class CannotStart(Exception):
    """Why nothing was started, and what to do."""


def up(log: Log) -> None:
    """Start, print the address, keep running until asked to stop, stop in order. Raises CannotStart."""
    supervisor = Supervisor(log)
    supervisor.obey_signals()
    with only_one(settings.DATA_DIR):
        check_port()
        _prepare(log)
        try:
            if settings.EMBEDDED_VALKEY:
                start_broker(supervisor)
            _start_site(supervisor, log)
            supervisor.run()
        finally:
            supervisor.stop()
    log.line("lowrank", "stopped")


@contextmanager
def only_one(data_dir: Path) -> Iterator[None]:
    """Hold the lock of the data folder. Two `up` on one folder would be two reapers, two schedulers and two brokers."""
    data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (data_dir / "up.lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CannotStart(_who_runs(data_dir)) from None
        file.truncate(0)
        file.write(json.dumps({"pid": os.getpid(), "address": settings.BASE_URL}))
        file.flush()
        yield


def _who_runs(data_dir: Path) -> str:
    try:
        holder = json.loads((data_dir / "up.lock").read_text())
        who = f"process {holder['pid']}, {holder['address']}"
    except (ValueError, KeyError):  # it is just writing its name down
        who = "another process"
    return f"Lowrank is running on {data_dir} already: {who}. Stop it first, or set DATA_DIR to another folder."


def check_port() -> None:
    """Raise CannotStart when somebody else listens where the web will."""
    family = socket.AF_INET6 if ":" in settings.HOST else socket.AF_INET
    end = time.monotonic() + PORT_SECONDS
    while True:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((settings.HOST, settings.PORT))
            except OSError as error:
                if time.monotonic() > end:
                    raise CannotStart(_port_problem(error)) from error
            else:
                return
        time.sleep(0.1)


def _port_problem(error: OSError) -> str:
    where = f"port {settings.PORT} on {settings.HOST}"
    return f"Cannot listen on {where}: {error.strerror}. Choose another, such as `make run PORT={settings.PORT + 1}`."


def _prepare(log: Log) -> None:
    applied = prepare.migrate()
    if applied:
        log.line("lowrank", f"database brought up to date ({applied} migrations)")
    if prepare.collect_static():
        log.line("lowrank", "static files collected")


def start_broker(supervisor: Supervisor) -> Child:
    """Start Valkey. When it cannot read its files they are put aside: the database rings again."""
    try:
        child = supervisor.start(processes.broker())
    except valkey.ValkeyFailed as error:
        raise CannotStart(str(error)) from error

    def settled() -> bool:
        return not child.alive or valkey.answers(settings.VALKEY_SOCKET)

    supervisor.wait_for(settled, seconds=valkey.START_SECONDS)
    if not child.alive and (aside := valkey.put_aside(settings.DATA_DIR / "valkey")):
        supervisor.log.line("lowrank", f"Valkey could not read its files; they are now in {aside}, it starts empty")
        supervisor.restart(child)
        supervisor.wait_for(settled, seconds=valkey.START_SECONDS)
    return child


def _start_site(supervisor: Supervisor, log: Log) -> None:
    """The web first, so that a page answers soon; then the workers, which take longer to load."""
    prepare.create_first_things()
    link = setup_link()
    connections.close_all()  # the children have their own; this process only watches from here on
    supervisor.start(processes.web())
    if supervisor.wait_for(web_answers, seconds=WEB_SECONDS):
        _greet(log, link)
    elif not supervisor.stop_requests:
        log.line("lowrank", f"the web does not answer within {WEB_SECONDS:.0f} s; its lines above say why")
    for program in processes.workers():
        if not supervisor.stop_requests:
            supervisor.start(program)


def web_answers() -> bool:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.HOST, settings.HOST)  # noqa: S104 - what HOST may be
    connection = HTTPConnection(host, settings.PORT, timeout=2)
    try:
        connection.request("GET", "/healthz", headers={"Host": "localhost"})
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def _greet(log: Log, link: str | None) -> None:
    log.plain("")
    log.plain(f"  Lowrank {version()} answers on {settings.BASE_URL}")
    if link:
        log.plain(f"  Create the owner's account, once: {settings.BASE_URL}{link}")
    if settings.HOST in EVERY_INTERFACE:
        names = [name for name in settings.ALLOWED_HOSTS if name.strip("[]") not in LOCAL_NAMES]
        log.plain(f"  From other machines: {', '.join(f'http://{name}:{settings.PORT}' for name in names)}")
    log.plain(f"  Data lies in {settings.DATA_DIR}. Ctrl-C stops everything.")
    log.plain("")
