"""One fetch of a base model, from taking it to ready or failed: supervises the child `python -m trainer fetch`."""

import logging
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO
from uuid import UUID

from django.utils.text import slugify

from trainer.events import Event, Failed, Fetched, Finished, decode
from webapp.adapters import lifecycle
from webapp.adapters.allowed import allowed_folder
from webapp.adapters.models import BaseModel, BaseSource
from webapp.common.child_environment import child_environment
from webapp.common.errors import UserError
from webapp.common.pulse import Pulse
from webapp.common.storage import base_folder

logger = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parent.parent.parent
REPORT_SECONDS = 1.0
UNEXPECTED = "Fetching ended unexpectedly. The log of the default worker says why. Try again."


shutting_down = threading.Event()  # set when this process was asked to end


class LostPlace(Exception):
    """Another process runs this fetch now, or the base model is gone."""


class Stopped(Exception):
    """This process was asked to end."""


def broken(mark: str) -> str:
    """What people read when our own code failed."""
    return f"Fetching failed on our side (error {mark}); the log of the default worker has the cause. Try again."


def fetch_base(base_id: UUID, fetch: int) -> bool:
    """Carry through the fetch that was begun, and say what came of it. Returns whether the base model is ready now."""
    base = BaseModel.objects.get(pk=base_id)
    try:
        last = _run(base, fetch, _arguments(base))
    except UserError as error:
        lifecycle.fail(base_id, fetch, str(error))
        return False
    except LostPlace:
        logger.info("the fetch %s of %s lost its place", fetch, base)
        return False
    except Stopped:
        lifecycle.give_back(base_id, fetch)
        return False
    if isinstance(last, Finished):
        return lifecycle.finish(base_id, fetch, path=last.folder, facts=last.facts)
    lifecycle.fail(base_id, fetch, f"{last.text} {last.fix}".strip() if last else UNEXPECTED)
    return False


def _arguments(base: BaseModel) -> list[str]:
    """What `python -m trainer fetch` is asked. Raises UserError when the folder is not allowed (any more)."""
    if base.source == BaseSource.FOLDER:
        return ["folder", str(allowed_folder(base.location))]
    out = ["--out", str(folder_of(base))]
    if base.source == BaseSource.DEMO:
        return ["demo", *out]
    return ["hub", base.location, *(["--revision", base.revision] if base.revision else []), *out]


def folder_of(base: BaseModel) -> Path:
    """Where a fetched model goes. Its last part is a name that people know: adapters carry it to other machines."""
    name = base.name.rpartition("/")[2]
    plain = "".join(one if one.isascii() and (one.isalnum() or one in "._-") else "-" for one in name).strip(".-")
    return base_folder(base.pk) / (plain or slugify(str(base.pk)))


def _run(base: BaseModel, fetch: int, arguments: list[str]) -> Finished | Failed | None:
    """The child's last word; None when it had none. What a child that was killed left beside the model goes."""
    _sweep(base)
    child = subprocess.Popen(
        [sys.executable, "-m", "trainer", "fetch", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env=child_environment(with_hub_token=True) | {"PYTHONUNBUFFERED": "1"},
        start_new_session=True,
    )
    said: queue.Queue[Event | None] = queue.Queue()
    threading.Thread(target=_read, args=(child.stdout, said), daemon=True).start()
    try:
        return _follow(Progress(base.pk, fetch), said)
    finally:
        _kill(child)
        _sweep(base)


def _sweep(base: BaseModel) -> None:
    """Only one fetch of a base model is not stale, so whatever was written aside is nobody's."""
    for path in base_folder(base.pk).glob(".tmp-*"):
        shutil.rmtree(path, ignore_errors=True)


class Progress:
    """Tells the database how far a fetch is, at most once a second, and gives signs of life in between."""

    def __init__(self, base_id: UUID, fetch: int) -> None:
        self._base_id, self._fetch = base_id, fetch
        self._pulse = Pulse(lambda: lifecycle.beat(base_id, fetch))
        self._waiting: Fetched | None = None
        self._said = time.monotonic() - REPORT_SECONDS

    def __call__(self, news: Fetched | None = None) -> None:
        """Raises LostPlace when the fetch is no longer ours."""
        self._waiting = news or self._waiting
        if not (self._report(self._waiting) if self._waiting else self._pulse()):
            raise LostPlace

    def _report(self, news: Fetched) -> bool:
        if time.monotonic() - self._said < REPORT_SECONDS:
            return True
        self._said, self._waiting = time.monotonic(), None
        return lifecycle.report(self._base_id, self._fetch, done=news.done, of=news.of, what=news.what)


def _follow(progress: Progress, said: "queue.Queue[Event | None]") -> Finished | Failed | None:
    last: Finished | Failed | None = None
    while not shutting_down.is_set():
        try:
            event = said.get(timeout=REPORT_SECONDS)
        except queue.Empty:
            progress()
            continue
        if event is None:
            return last
        if isinstance(event, (Finished, Failed)):
            last = event
        progress(event if isinstance(event, Fetched) else None)
    raise Stopped


def _read(pipe: IO[bytes], said: "queue.Queue[Event | None]") -> None:
    """The child's events in order, then None."""
    with pipe:
        for line in pipe:
            try:
                said.put(decode(line.decode(errors="replace"))[1])
            except ValueError:
                logger.warning("not an event: %r", line[:200])
    said.put(None)


def _kill(child: "subprocess.Popen[bytes]") -> None:
    """End the child and what it started, such as pip."""
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        logger.debug("the fetch's processes have ended by themselves")
    child.wait()
