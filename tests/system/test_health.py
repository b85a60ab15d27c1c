"""Health: one address that says the process lives, one that says what is missing."""

from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from django.test import Client
from django.utils import timezone

from tests.processes import Processes, wait_for
from webapp.jobs.models import Worker
from webapp.system import health

PORT = 8155


def test_healthz_answers_without_anything(client: Client) -> None:
    """No database is allowed here: an answer means only that the process lives."""
    response = client.get("/healthz")
    assert (response.status_code, response.json()) == (200, {"status": "ok"})
    assert "no-store" in response["Cache-Control"]


def test_health_is_asked_over_plain_http(client: Client, settings: object) -> None:
    settings.SECURE_SSL_REDIRECT = True  # type: ignore[attr-defined]
    assert client.get("/healthz").status_code == 200
    assert client.get("/accounts/login/").status_code == 301


def test_readyz_names_what_is_missing_and_no_more(client: Client, db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "CHECKS", {"database": lambda: True, "broker": lambda: False, "disk": lambda: False})
    response = client.get("/readyz")
    assert response.status_code == 503
    assert response.json() == {"status": "not ready", "missing": ["broker", "disk"]}


def test_readyz_is_green_when_nothing_is_missing(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "CHECKS", {"disk": lambda: True})
    response = client.get("/readyz")
    assert (response.status_code, response.json()) == (200, {"status": "ready"})


@pytest.mark.parametrize(("stopped", "seconds_ago", "lives"), [(False, 0, True), (True, 0, False), (False, 60, False)])
def test_worker_lives_while_it_is_heard_of(db: None, stopped: bool, seconds_ago: int, lives: bool) -> None:
    worker = Worker.objects.create(name="w", stopped=stopped)
    Worker.objects.filter(pk=worker.pk).update(seen_at=timezone.now() - timedelta(seconds=seconds_ago))
    assert health.worker_lives() is lives


def test_database_answers(db: None) -> None:
    assert health.database_answers()


def test_full_disk_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert health.disk_has_room()
    monkeypatch.setattr(health, "MIN_FREE_BYTES", 2**62)
    assert not health.disk_has_room()


@pytest.mark.chaos
def test_readyz_follows_the_broker(tmp_path: Path) -> None:
    def missing() -> list[str]:
        found: list[str] = httpx.get(f"http://localhost:{PORT}/readyz", timeout=10).json().get("missing", [])
        return found

    with Processes(tmp_path) as running:
        running.prepare()
        running.broker()
        running.web(PORT)
        assert missing() == ["workers"]
        running.kill("broker")
        wait_for(lambda: missing() == ["broker", "workers"], seconds=10, why="the broker is missed")
        running.broker()
        wait_for(lambda: missing() == ["workers"], seconds=10, why="the broker is back")
        (tmp_path / "db.sqlite3").rename(tmp_path / "elsewhere")
        (tmp_path / "db.sqlite3").mkdir()
        wait_for(lambda: missing() == ["database", "workers"], seconds=10, why="the database is missed")
        assert httpx.get(f"http://localhost:{PORT}/healthz", timeout=10).status_code == 200
