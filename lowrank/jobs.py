"""`lowrank jobs`: create, list, watch, read the log, wait, cancel, pause and resume."""

import argparse
import time
from collections.abc import Callable
from typing import Any

from lowrank.client import Client, segment
from lowrank.failures import CANCELLED, FAILED, INTERRUPTED, OK, TIMED_OUT, Away
from lowrank.job_request import request_of
from lowrank.login import read_login
from lowrank.printing import Progress, moment_text, say, table, write, write_json

PATH = "/fine_tuning/jobs"
EXIT_CODES = {"succeeded": OK, "failed": FAILED, "cancelled": CANCELLED}
PAUSE = 1.0  # seconds between two looks
PATIENCE = 600.0  # seconds that a server which restarts may be away
PAGE = 200
Job = dict[str, Any]


def create(given: argparse.Namespace) -> int:
    client = Client(read_login(given.team))
    made = client.post(PATH, request_of(given, client))
    if given.wait:
        say(f"{made['id']} is {made['status']}.")
        return _follow(client, made["id"], given)
    if given.json:
        write_json(made)
    else:
        write(made["id"])
        say(f"{made['user_provided_suffix']} is {made['status']}. `lowrank jobs watch {made['id']}` shows how it goes.")
    return OK


def list_all(given: argparse.Namespace) -> int:
    found = Client(read_login(given.team)).pages(PATH, most=given.limit, limit=min(given.limit or PAGE, PAGE))
    if given.json:
        for job in found:
            write_json(job)
        return OK
    rows = [(one["id"], one["shown_status"], moment_text(one["created_at"]), one["model"], one["user_provided_suffix"])
            for one in found]  # fmt: skip
    table(("id", "state", "created", "base model", "name"), rows)
    return OK


def change(given: argparse.Namespace) -> int:
    """Cancel, pause or resume; the wish is told at once, the job follows at its next step."""
    job = Client(read_login(given.team)).post(f"{_path(given.job)}/{given.action}", once=False)
    if given.json:
        write_json(job)
    else:
        write(f"{job['id']} is {job['shown_status']}.")
    return OK


def wait(given: argparse.Namespace) -> int:
    return _follow(Client(read_login(given.team)), given.job, given)


def _follow(client: Client, job_id: str, given: argparse.Namespace) -> int:
    """Until it has ended; what it came to is the exit code."""
    progress = Progress()
    try:
        look = _no_look if given.quiet else lambda job: progress.show(_line(client, job))
        ended, job = _until_ended(client, job_id, look, timeout=given.timeout)
    except KeyboardInterrupt:
        progress.end()
        say(f"{job_id} goes on. `lowrank jobs wait {job_id}` waits for it again.")
        return INTERRUPTED
    finally:
        progress.end()
    return _tell_end(job, given) if ended else _tell_timeout(job, given)


def _no_look(job: Job) -> None:
    """Nothing is told before the end."""


def _until_ended(
    client: Client, job_id: str, look: Callable[[Job], None], *, timeout: float | None
) -> tuple[bool, Job]:
    """Whether it has ended in time, and the job as it is then. A server that is away for a while is waited for."""
    begun = heard = time.monotonic()
    job: Job = {"id": job_id, "status": "unknown", "shown_status": "unknown"}
    while True:
        try:
            job = client.get(_path(job_id))
            look(job)
            heard = time.monotonic()
        except Away:
            if time.monotonic() - heard > PATIENCE or job["status"] == "unknown":
                raise
        if job["status"] in EXIT_CODES:
            return True, job
        left = PAUSE if timeout is None else begun + timeout - time.monotonic()
        if left <= 0:
            return False, job
        time.sleep(min(PAUSE, left))


def _line(client: Client, job: Job) -> str:
    """Where it stands, in one line."""
    if job["status"] != "running":
        return f"{job['shown_status']}"
    newest = client.get(f"{_path(job['id'])}/events", limit=20)["data"]
    figures = next((one["data"] for one in newest if one["type"] == "metrics" and "total_steps" in one["data"]), None)
    if figures is None:
        return next((one["message"] for one in newest), "running")
    text = f"{job['shown_status']}  step {figures['step']}/{figures['total_steps']}  loss {figures['train_loss']:.4f}"
    left = figures.get("seconds_left")
    return f"{text}  {left:.0f} s left" if left is not None else text


def _tell_end(job: Job, given: argparse.Namespace) -> int:
    if given.json:
        write_json(job)
    elif job["status"] == "succeeded":
        write(job["fine_tuned_model"] or "")
    else:
        say(f"{job['id']} {job['status']}." if not job["error"] else f"{job['id']} failed: {job['error']['message']}")
    return EXIT_CODES[job["status"]]


def _tell_timeout(job: Job, given: argparse.Namespace) -> int:
    if given.json:
        write_json(job)
    say(f"{job['id']} is {job['shown_status']} after {given.timeout:g} s, and goes on.")
    return TIMED_OUT


def logs(given: argparse.Namespace) -> int:
    """Its events, the oldest first; with `-f` until it has ended."""
    client = Client(read_login(given.team))
    seen = _tell_events(client, given, "")
    if not given.follow:
        return OK
    follower = _Follower(client, given, seen)
    try:
        _, job = _until_ended(client, given.job, lambda _: follower.more(), timeout=None)
        follower.more()
    except KeyboardInterrupt:
        say(f"{given.job} goes on.")
        return INTERRUPTED
    return EXIT_CODES[job["status"]]


class _Follower:
    """Tells the events that came since the last look."""

    def __init__(self, client: Client, given: argparse.Namespace, seen: str) -> None:
        self.client, self.given, self.seen = client, given, seen

    def more(self) -> None:
        self.seen = _tell_events(self.client, self.given, self.seen)


def _tell_events(client: Client, given: argparse.Namespace, after: str) -> str:
    """Tell those after this one; the id of the last that was told."""
    query = {"order": "asc", "limit": PAGE}
    while True:
        page = client.get(f"{_path(given.job)}/events", after=after or None, **query)
        for event in page["data"]:
            after = event["id"]
            if given.json:
                write_json(event)
            else:
                clock = time.strftime("%H:%M:%S", time.localtime(event["created_at"]))
                write(f"{clock}  {event['message']}")
        if not page["has_more"]:
            return after


def _path(job_id: str) -> str:
    return f"{PATH}/{segment(job_id)}"
