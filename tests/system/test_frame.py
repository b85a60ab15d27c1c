"""The frame around every page: rail, theme, toasts, and error pages in the same shell."""

from collections import Counter

import pytest
from django.contrib.messages import get_messages
from django.db import connection
from django.template.loader import render_to_string
from django.test import Client, override_settings
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from tests.cast import Cast
from tests.make import make_adapter, make_base, make_dataset, make_job
from webapp.accounts.models import Team
from webapp.jobs.models import JobStatus

pytestmark = pytest.mark.django_db


def test_the_rail_marks_where_one_is(cast: Cast) -> None:
    html = cast.client("alice").get("/machines/").content.decode()
    assert '<a href="/machines/" aria-current="page">' in html
    assert html.count('aria-current="page"') == 1
    assert "Red team" in html


def test_the_team_menu_switches_by_post(cast: Cast) -> None:
    html = cast.client("alice").get("/").content.decode()
    for team in Team.objects.visible_to(cast.alice):
        assert f'action="/teams/{team.slug}/switch/"' in html
    assert 'action="/accounts/logout/"' in html


@pytest.mark.parametrize(("cookie", "attribute"), [("dark", ' data-theme="dark"'), ("<x>", ""), ("", "")])
def test_the_theme_comes_from_the_cookie(cast: Cast, cookie: str, attribute: str) -> None:
    client = cast.client("alice")
    client.cookies["theme"] = cookie
    assert f'<html lang="en"{attribute}>' in client.get("/").content.decode()


def test_a_missing_page_has_the_shell_of_who_asks(cast: Cast) -> None:
    inside = cast.client("alice").get("/nowhere/")
    outside = cast.client("anonymous").get("/nowhere/")
    assert inside.status_code == outside.status_code == 404
    assert 'id="rail"' in inside.content.decode()
    assert 'id="rail"' not in outside.content.decode()


def test_an_error_in_a_fragment_is_a_fragment(cast: Cast) -> None:
    """Whoever is logged out or asks for what is gone does not get a page inside the page."""
    fragment = {"HX-Request": "true"}
    for who in ("alice", "anonymous"):
        missing = cast.client(who).get("/nowhere/", headers=fragment)
        assert missing.status_code == 404
        assert "This page does not exist" in missing.content.decode()
        assert "<html" not in missing.content.decode()
    expired = Client(enforce_csrf_checks=True).post("/accounts/login/", {}, headers=fragment)
    assert expired.status_code == 403
    assert "<html" not in expired.content.decode()


def test_nobody_is_led_to_what_their_role_does_not_allow(cast: Cast) -> None:
    """Bob may start jobs, vera may not: every page outside the datasets offers it to him alone."""
    base = make_base()
    pages = [reverse("chat"), reverse("adapters"), reverse("base_model", args=[base.pk]), reverse("jobs"), "/"]
    make_dataset(cast.team)
    offers = f'href="{reverse("job_new")}'
    for page in pages:
        assert offers in cast.client("bob").get(page).content.decode(), page
        assert offers not in cast.client("vera").get(page).content.decode(), page
    make_adapter(cast.team, base)
    for page in (reverse("adapters"), reverse("base_model", args=[base.pk])):
        assert offers in cast.client("bob").get(page).content.decode(), page
        assert offers not in cast.client("vera").get(page).content.decode(), page


def test_a_form_without_token_is_explained(cast: Cast) -> None:
    client = Client(enforce_csrf_checks=True)
    response = client.post("/accounts/login/", {})
    assert response.status_code == 403
    assert "This form has expired" in response.content.decode()


@pytest.mark.django_db(databases=[])
def test_the_page_of_a_crash_needs_no_database() -> None:
    assert "Something broke" in render_to_string("500.html")


@override_settings(DEBUG=False)
def test_pages_carry_the_policy_and_no_foreign_address(cast: Cast) -> None:
    response = cast.client("alice").get("/")
    assert "script-src 'self'" in response.headers["Content-Security-Policy"]
    assert "https://" not in response.content.decode()


def test_the_live_region_is_there_before_any_message(cast: Cast) -> None:
    response = cast.client("alice").get("/")
    assert 'id="toasts" role="status"' in response.content.decode()
    assert not list(get_messages(response.wsgi_request))


@pytest.mark.parametrize(
    "page", ["home", "datasets", "jobs", "adapters", "chat", "base_models", "machines", "settings"]
)
def test_nothing_is_asked_of_the_database_twice(cast: Cast, page: str) -> None:
    job = make_job(cast.team, status=JobStatus.RUNNING)
    make_adapter(cast.team, job.base_model)
    client = cast.client("bob")
    with CaptureQueriesContext(connection) as asked:
        assert client.get(reverse(page)).status_code == 200
    times = Counter(one["sql"] for one in asked)
    assert [sql for sql, count in times.items() if count > 1] == []
