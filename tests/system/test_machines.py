"""The machines page: each worker, what it does, and whose job may be named."""

from datetime import timedelta

import pytest
from django.utils import timezone

from tests.cast import Cast
from tests.make import make_attempt, make_job, make_worker
from webapp.jobs.models import JobStatus, Worker
from webapp.system.machines import machines_of

pytestmark = pytest.mark.django_db


def test_states_of_workers(cast: Cast) -> None:
    make_worker("idle")
    make_attempt(make_job(cast.team, status=JobStatus.RUNNING), worker=make_worker("busy"))
    make_worker("gone", stopped=True)
    Worker.objects.filter(pk=make_worker("silent").pk).update(seen_at=timezone.now() - timedelta(minutes=10))
    old = make_worker("forgotten", stopped=True)
    Worker.objects.filter(pk=old.pk).update(seen_at=timezone.now() - timedelta(days=30))
    found = {machine.worker.name: machine.state for machine in machines_of(cast.alice)}
    assert found == {"busy": "working", "idle": "online", "silent": "missing", "gone": "offline"}


def test_a_job_is_named_only_to_its_team(cast: Cast) -> None:
    make_attempt(make_job(cast.team, name="secret-job", status=JobStatus.RUNNING), worker=make_worker("busy"))
    assert "secret-job" in cast.client("vera").get("/machines/").content.decode()
    html = cast.client("charlie").get("/machines/").content.decode()
    assert "secret-job" not in html
    assert "Works for another team" in html


def test_no_machine_online_is_said(cast: Cast) -> None:
    html = cast.client("alice").get("/machines/").content.decode()
    assert "No machine is online" in html
    assert "DATABASE_URL" in html


def test_htmx_gets_the_fragment(cast: Cast) -> None:
    html = cast.client("alice").get("/machines/", headers={"HX-Request": "true"}).content.decode()
    assert "<html" not in html
