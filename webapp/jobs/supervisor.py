"""Watches over one attempt: starts the trainer, keeps the lease, passes on its reports, decides how it ended."""

import contextlib
import json
import logging
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from django.conf import settings
from django.db import InterfaceError, OperationalError, close_old_connections

from trainer import events
from trainer.errors import EXIT_CODES
from trainer.formats.canonical import TOKENS_FOLDER
from webapp.adapters.publishing import Snapshot, is_there
from webapp.jobs import lifecycle
from webapp.jobs.child import Child
from webapp.jobs.lifecycle import LeaseLost
from webapp.jobs.models import Attempt, FailureReason, Job

logger = logging.getLogger(__name__)

TRAINER = (sys.executable, "-m", "trainer")


def _hand_back_seconds() -> float:
    return float(settings.HAND_BACK_SECONDS)


def _half_an_hour() -> dict[str, float]:
    return {"loading": 1800, "preparing": 1800, "training": 1800, "evaluating": 3600, "saving": 1800}


@dataclass(frozen=True)
class Patience:
    """How long the supervisor waits, in seconds."""

    look: float = 0.2  # between two looks at the child
    flush: float = 1.0  # between two writes to the database, and two looks at the wish to cancel
    cancel: float = 20.0  # from SIGTERM to SIGKILL
    preempt: float = field(default_factory=_hand_back_seconds)  # the same while the worker itself is asked to go
    pause: float = 1800.0  # the same for a pause: nobody is in a hurry, and a step may be long
    silence: dict[str, float] = field(default_factory=_half_an_hour)  # without an event, by phase
    silence_otherwise: float = 1800.0


@dataclass
class Stop:
    """The child was asked to stop: why, and when patience ends."""

    why: str  # pause, cancel, preempt or stalled
    deadline: float
    forced: bool = False


def prepare(attempt: Attempt) -> list[str]:
    """Fill the attempt's folder with what the trainer needs; returns the arguments of `python -m trainer`."""
    job = attempt.job
    attempt.folder.mkdir(parents=True, exist_ok=True)
    spec = job.spec | {
        "model": job.spec["model"] | {"base": str(job.base_model.folder), "revision": ""},
        "data": job.spec["data"] | {"path": str(job.dataset_version.rows_path), "holdout_path": _holdout_path(job)},
    }
    with contextlib.suppress(OSError):  # a volume that is read here alone; the trainer then tokenises each time
        (job.dataset_version.rows_path.parent / TOKENS_FOLDER).mkdir(exist_ok=True)
    file = attempt.folder / "spec.json"
    file.write_text(json.dumps(spec, indent=2), encoding="utf-8")
    resume = earlier_attempts(attempt)
    return ["train", str(file), "--out", str(attempt.folder), *(["--resume", str(resume)] if resume else [])]


def _holdout_path(job: Job) -> str:
    return str(job.validation_version.rows_path) if job.validation_version else ""


def earlier_attempts(attempt: Attempt) -> Path | None:
    """Where all attempts lie, once one has reported a checkpoint; the trainer takes the furthest sound one of any."""
    earlier = Attempt.objects.filter(job=attempt.job_id, number__lt=attempt.number)
    return attempt.job.folder if earlier.exclude(checkpoint_folder="").exists() else None


def inside(folder: Path, name: str) -> Path | None:
    """The path `name` below `folder`, None when it leads out of it."""
    found = (folder / name).resolve()
    return found if found.is_relative_to(folder.resolve()) and found != folder.resolve() else None


def snapshots_of(attempt: Attempt, finished: events.Finished) -> Iterator[Snapshot]:
    """The weights on the way that the trainer reports beside the adapter."""
    for told in finished.facts.get("checkpoints", []):
        if folder := inside(attempt.folder, told["folder"]):
            metrics = {name: value for name, value in told.items() if name not in ("folder", "step")}
            yield Snapshot(folder, told["step"], metrics)


def supervise(
    attempt: Attempt,
    *,
    is_stopping: Callable[[], bool],
    trainer: Sequence[str] = TRAINER,
    patience: Patience | None = None,
) -> None:
    """Carry an attempt through to its end. Losing the lease ends the child and changes nothing else."""
    child = Child([*trainer, *prepare(attempt)], attempt.folder)
    watch = Supervision(attempt, child, is_stopping, patience or Patience())
    try:
        watch.until_it_ends()
        watch.conclude()
    except LeaseLost:
        logger.warning("%s: the lease is lost; another attempt has the job", attempt)
    finally:
        child.close()


class Supervision:
    """The state of watching one child."""

    def __init__(self, attempt: Attempt, child: Child, is_stopping: Callable[[], bool], patience: Patience) -> None:
        self.attempt = attempt
        self.child = child
        self.is_stopping = is_stopping
        self.patience = patience
        self.stop: Stop | None = None
        self.unwritten: list[events.Event] = []
        self.last: dict[type[events.Event], events.Event] = {}  # the newest of each kind
        self._events_seen = 0
        self._heard_at = self._beat_at = self._flushed_at = time.monotonic()

    def until_it_ends(self) -> None:
        """Look, beat, write and obey until the child has gone. Raises LeaseLost."""
        while self.child.exit_status() is None:
            now = time.monotonic()
            self._listen(now)
            if now - self._flushed_at >= self.patience.flush:
                self._flushed_at = now
                self._with_database(self._flush)
            if now - self._beat_at >= settings.HEARTBEAT_SECONDS:
                self._beat_at = now
                self._with_database(lambda: lifecycle.heartbeat(self.attempt))
            self._see_to_the_end(now)
            time.sleep(self.patience.look)
        self.child.kill()  # what it started goes before its end is told, and with it the last holder of its pipes
        self.child.drain()
        self._listen(time.monotonic())

    def conclude(self) -> None:
        """Write down how it ended; a database that is away is waited for. Raises LeaseLost."""
        while not self._with_database(self._end):
            time.sleep(1)

    def _listen(self, now: float) -> None:
        new = self.child.take()
        self.unwritten += new
        self.last |= {type(event): event for event in new}
        if self.child.events_read != self._events_seen:
            self._events_seen, self._heard_at = self.child.events_read, now

    def _flush(self) -> None:
        if self.unwritten:
            lifecycle.record_events(self.attempt, self.unwritten)
            self.unwritten = []
        wish = lifecycle.wish_of(self.attempt)
        if wish == "cancel" and self._may_be_hurried():
            self._ask_to_stop("cancel", self.patience.cancel)
        elif wish == "pause" and self.stop is None:
            self._ask_to_stop("pause", self.patience.pause)

    def _may_be_hurried(self) -> bool:
        """Whether it was not asked to stop yet, or only for a pause."""
        return self.stop is None or self.stop.why == "pause"

    def _see_to_the_end(self, now: float) -> None:
        phase = self.last.get(events.Phase)
        silence = self.patience.silence_otherwise
        if isinstance(phase, events.Phase):
            silence = self.patience.silence.get(phase.name, silence)
        if self._may_be_hurried() and self.is_stopping():
            self._ask_to_stop("preempt", self.patience.preempt)
        elif self._may_be_hurried() and now - self._heard_at > silence:
            self._ask_to_stop("stalled", self.patience.cancel)
        elif self.stop and not self.stop.forced and now > self.stop.deadline:
            self.stop.forced = True
            self.child.kill()

    def _ask_to_stop(self, why: str, grace: float) -> None:
        logger.info("%s: asking the trainer to stop (%s)", self.attempt, why)
        self.stop = Stop(why, time.monotonic() + grace)
        self.child.ask_to_stop()

    def _end(self) -> None:
        if self.unwritten:
            lifecycle.record_events(self.attempt, self.unwritten)
            self.unwritten = []
        if lifecycle.is_cancel_wished(self.attempt):
            lifecycle.cancelled(self.attempt, forced=bool(self.stop and self.stop.forced))
            return
        status = self.child.exit_status() or 0
        finished, failed = self.last.get(events.Finished), self.last.get(events.Failed)
        if isinstance(failed, events.Failed):
            lifecycle.fail(self.attempt, failed.code, failed.text, failed.fix)
        # A signal that comes while Python shuts down ends it after its work is done: that counts.
        elif isinstance(finished, events.Finished) and (status == 0 or self.stop):
            self._publish(finished)
        elif self.stop and self.stop.why == "stalled":
            lifecycle.fail(self.attempt, *self._stalled())
        elif self.stop and self.stop.why == "pause":
            lifecycle.requeue_paused(self.attempt)
        elif self.stop:
            lifecycle.requeue_preempted(self.attempt)
        elif status < 0 or status == EXIT_CODES["stopped"]:
            lifecycle.requeue_interrupted(self.attempt, _interruption(status))
        else:
            lifecycle.fail(self.attempt, *self._silent_failure(status))

    def _publish(self, finished: events.Finished) -> None:
        folder = inside(self.attempt.folder, finished.folder)
        facts = {name: value for name, value in finished.facts.items() if name != "checkpoints"}
        if folder is None or not is_there(folder, lifecycle.adapter_id_of(self.attempt.job_id), facts):
            text = "The trainer reported an adapter that is not there."
            lifecycle.fail(self.attempt, FailureReason.INTERNAL, text, "Start the job again.")
            return
        try:
            lifecycle.succeed(self.attempt, folder, facts, snapshots_of(self.attempt, finished))
        except LeaseLost:
            if not lifecycle.is_cancel_wished(self.attempt):  # raises when the lease is really lost
                raise
            lifecycle.cancelled(self.attempt)

    def _stalled(self) -> tuple[str, str, str]:
        phase = self.last.get(events.Phase)
        where = f" while {phase.name}" if isinstance(phase, events.Phase) else ""
        text = f"The trainer reported nothing for {int(time.monotonic() - self._heard_at) // 60} minutes{where}."
        return FailureReason.STALLED, text, "Look at the end of the log; then start the job again."

    def _silent_failure(self, status: int) -> tuple[str, str, str]:
        reason = next((code for code, number in EXIT_CODES.items() if number == status), FailureReason.INTERNAL)
        if reason not in FailureReason.values:
            reason = FailureReason.INTERNAL
        text = f"The trainer ended with status {status} and without a word."
        return reason, text, "The end of its log tells more."

    def _with_database(self, write: Callable[[], None]) -> bool:
        """Whether it was written. A database that is briefly away costs nothing: what is unwritten waits here."""
        try:
            write()
        except (OperationalError, InterfaceError) as error:
            logger.warning("%s: the database is away: %s", self.attempt, error)
            close_old_connections()
            return False
        return True


def _interruption(status: int) -> str:
    if status == -signal.SIGKILL:
        return "The trainer was killed from outside; often the machine ran out of memory."
    if status < 0:
        return f"The trainer was ended by {signal.Signals(-status).name}."
    return "The trainer was asked to stop from outside."
