"""The scheduler: what fails in one look keeps nothing else from being looked at, and it goes when it is asked to."""

import threading
from pathlib import Path

import pytest
from django.conf import LazySettings
from django.db import OperationalError

from tests.processes import Processes, wait_for
from webapp.system import scheduler, tasks


class Failing:
    def __init__(self, error: Exception) -> None:
        self.error = error

    def reconcile(self, now: float) -> None:
        raise self.error


class Counting:
    looks = 0

    def __init__(self, stopping: threading.Event) -> None:
        self.stopping = stopping

    def reconcile(self, now: float) -> None:
        self.looks += 1
        if self.looks == 3:
            self.stopping.set()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("error", [OperationalError("away"), ValueError("a fault of our own")])
def test_one_failing_watcher_does_not_hold_up_the_others(
    monkeypatch: pytest.MonkeyPatch, settings: LazySettings, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    settings.RECONCILE_SECONDS = 0.01
    stopping = threading.Event()
    last = Counting(stopping)
    for name in ("Reaper", "Answers", "Inspections", "Fetches"):
        monkeypatch.setattr(scheduler, name, lambda: Failing(error))
    monkeypatch.setattr(scheduler, "CleanUp", lambda: last)
    scheduler.run(stopping)
    assert last.looks == 3
    assert str(error) in caplog.text
    assert (settings.DATA_DIR / "scheduler").is_file()


def test_the_clean_up_is_rung_for_at_the_start_and_every_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    rung: list[bool] = []
    answers = iter([False, True, True])  # the broker is away at first
    monkeypatch.setattr(tasks, "ring", lambda: bool(rung.append(True)) or next(answers))
    watcher = scheduler.CleanUp()
    for now in (0, 5, 10, 3604, 3605):
        watcher.reconcile(now)
    assert len(rung) == 3


@pytest.mark.chaos
def test_it_needs_no_broker_and_goes_when_asked(tmp_path: Path) -> None:
    with Processes(tmp_path) as running:
        running.prepare()
        running.scheduler()  # no broker is there: looking for lost work does without
        wait_for((tmp_path / "scheduler").is_file, seconds=20, why="it has looked once")
        assert running.stop("scheduler", seconds=5) == 0
