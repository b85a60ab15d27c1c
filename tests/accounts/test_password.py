"""Changing and resetting the password."""

import re
from typing import Any

import pytest
from django.core import mail
from django.test import Client

from tests.cast import PASSWORD, Cast
from webapp.accounts.models import AuditEntry

NEW = "a wholly other phrase"


def test_it_is_changed_with_the_old_one(cast: Cast) -> None:
    client, elsewhere = cast.client("alice"), cast.client("alice")
    form = {"oldpassword": PASSWORD, "password1": NEW, "password2": NEW}
    assert client.post("/accounts/password/change/", form)["Location"] == "/settings/"
    cast.alice.refresh_from_db()
    assert cast.alice.check_password(NEW)
    assert client.get("/settings/").status_code == 200
    assert elsewhere.get("/settings/").status_code == 302  # other devices are logged out
    assert AuditEntry.objects.filter(action="password.change", actor=cast.alice).exists()


@pytest.mark.parametrize("change", [{"oldpassword": "wrong"}, {"password1": "12345678", "password2": "12345678"}])
def test_a_bad_value_changes_nothing(cast: Cast, change: dict[str, str]) -> None:
    form = {"oldpassword": PASSWORD, "password1": NEW, "password2": NEW} | change
    response = cast.client("alice").post("/accounts/password/change/", form)
    assert response.status_code == 200
    assert b"field-error" in response.content
    cast.alice.refresh_from_db()
    assert cast.alice.check_password(PASSWORD)


@pytest.mark.parametrize(("who", "page"), [("alice", "change"), ("anonymous", "reset")])
def test_the_forms_speak_as_the_others_do(cast: Cast, who: str, page: str) -> None:
    html = cast.client(who).get(f"/accounts/password/{page}/", follow=True).content.decode()
    assert "placeholder" not in html
    assert "Password (again)" not in html
    assert ("A few unrelated words make a good one." in html) == (page == "change")


def reset_link(client: Client, email: str = "alice@example.com") -> str:
    client.post("/accounts/password/reset/", {"email": email})
    found = re.search(r"http://testserver(/\S+)", str(mail.outbox[-1].body))
    assert found
    return found[1]


def test_it_is_reset_by_mail_once(cast: Cast, client: Client) -> None:
    link = reset_link(client)
    assert mail.outbox[0].to == ["alice@example.com"]
    form_page = client.get(link, follow=True)
    assert b"Choose a new password" in form_page.content
    done = client.post(form_page.redirect_chain[-1][0], {"password1": NEW, "password2": NEW})
    assert done.status_code == 302
    cast.alice.refresh_from_db()
    assert cast.alice.check_password(NEW)
    assert b"no longer works" in Client().get(link, follow=True).content


def test_unknown_people_get_the_same_page_and_no_mail(cast: Cast, client: Client) -> None:
    known = client.post("/accounts/password/reset/", {"email": "alice@example.com"}, follow=True)
    unknown = client.post("/accounts/password/reset/", {"email": "nobody@example.com"}, follow=True)
    assert known.redirect_chain == unknown.redirect_chain
    assert len(mail.outbox) == 1


def test_a_mail_server_that_is_away_shows_the_same_page(cast: Cast, client: Client, settings: Any) -> None:
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", 1
    assert client.post("/accounts/password/reset/", {"email": "alice@example.com"}).status_code == 302


def test_a_tampered_link_says_so(cast: Cast, client: Client) -> None:
    link = reset_link(client)
    assert b"no longer works" in client.get(link[:-3] + "xx/", follow=True).content


@pytest.mark.parametrize("address", ["done", "key/done"])
def test_the_pages_after_it_answer(client: Client, db: None, address: str) -> None:
    assert client.get(f"/accounts/password/reset/{address}/").status_code == 200
