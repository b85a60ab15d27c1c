"""The home page: four first steps while they last, then what runs and what ended."""

import pytest
from django.utils import timezone

from tests.cast import Cast
from tests.make import (
    make_adapter,
    make_base,
    make_conversation,
    make_dataset,
    make_job,
    make_share,
    make_turn,
    make_worker,
)
from webapp.accounts.models import Team
from webapp.jobs.models import JobStatus
from webapp.system.home import FirstSteps

pytestmark = pytest.mark.django_db


def page(cast: Cast, who: str = "alice") -> str:
    response = cast.client(who).get("/")
    assert response.status_code == 200
    return str(response.content.decode())


def states(cast: Cast) -> dict[str, str]:
    return FirstSteps(cast.team, cast.alice).states


def test_a_fresh_team_starts_with_the_sample_dataset(cast: Cast) -> None:
    make_base(source="demo")
    assert states(cast) == {"dataset": "next", "run": "later", "watch": "later", "chat": "later"}
    html = page(cast)
    assert "Use the sample" in html
    assert "Running now" not in html


def test_each_step_follows_from_the_database(cast: Cast) -> None:
    base = make_base(source="demo")
    version = make_dataset(cast.team).newest
    assert states(cast) == {"dataset": "done", "run": "next", "watch": "later", "chat": "later"}
    assert f"base={base.pk}" in page(cast)
    assert f"dataset={version and version.pk}" in page(cast)
    job = make_job(cast.team, version=version, base=base, status=JobStatus.RUNNING, step=3, steps=10)
    assert states(cast) == {"dataset": "done", "run": "done", "watch": "next", "chat": "later"}
    job.status, job.adapter = JobStatus.SUCCEEDED, make_adapter(cast.team, base)
    job.save()
    assert states(cast) == {"dataset": "done", "run": "done", "watch": "done", "chat": "next"}
    assert f"adapter={job.adapter.pk}" in page(cast)
    make_turn(make_conversation(cast.team, cast.alice, base))
    html = page(cast)
    assert "checklist" not in html
    assert "Running now" in html


def test_a_failed_run_is_the_next_step_again(cast: Cast) -> None:
    make_job(cast.team, status=JobStatus.FAILED)
    assert states(cast)["run"] == "next"
    assert "see why" in page(cast)


def test_the_demo_model_shows_its_progress_and_refreshes(cast: Cast) -> None:
    make_base(source="demo", status="fetching", fetched_bytes=50_000_000, total_bytes=100_000_000)
    html = page(cast)
    assert 'max="100000000" value="50000000"' in html
    assert 'hx-trigger="every 3s"' in html


def test_a_quiet_page_does_not_poll(cast: Cast) -> None:
    make_base(source="demo")
    assert "hx-trigger" not in page(cast)


def test_htmx_gets_the_fragment(cast: Cast) -> None:
    html = cast.client("alice").get("/", headers={"HX-Request": "true"}).content.decode()
    assert html.lstrip().startswith("<div")
    assert "<html" not in html


def test_running_finished_and_shared_are_shown(cast: Cast) -> None:
    base = make_base()
    make_worker()
    make_job(cast.team, name="now-running", base=base, status=JobStatus.RUNNING, step=1, steps=4)
    make_job(cast.team, name="long-done", base=base, status=JobStatus.CANCELLED, ended_at=timezone.now())
    other = Team.objects.create(name="Blue", slug="blue")
    make_share(make_adapter(other, base, name="their-adapter"), cast.team)
    make_share(make_adapter(other, base, name="for-everyone"))
    make_adapter(other, base, name="their-secret")
    html = page(cast)
    for name in ("now-running", "long-done", "their-adapter", "for-everyone"):
        assert name in html
    assert "their-secret" not in html


def test_strangers_see_nothing_of_the_team(cast: Cast) -> None:
    make_job(cast.team, name="secret-job", status=JobStatus.RUNNING)
    assert "secret-job" not in page(cast, "charlie")


def test_viewers_are_offered_no_changes(cast: Cast) -> None:
    html = page(cast, "vera")
    assert "checklist" not in html
    assert "New job" not in html


def test_without_a_worker_the_page_says_so(cast: Cast) -> None:
    assert "No machine is online" in page(cast)
    make_worker()
    assert "No machine is online" not in page(cast)


def test_the_rail_shows_and_refreshes_what_runs(cast: Cast) -> None:
    client = cast.client("vera")
    assert "hx-get" not in client.get("/running/").content.decode()
    make_job(cast.team, name="busy", status=JobStatus.RUNNING, step=1, steps=4)
    html = client.get("/running/").content.decode()
    assert "25%" in html
    assert "hx-get" in html


def test_anonymous_visitors_log_in_first(cast: Cast) -> None:
    for path in ("/", "/running/", "/machines/"):
        assert cast.client("anonymous").get(path).status_code == 302
