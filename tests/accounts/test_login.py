"""Logging in and out."""

from typing import Any

import pytest
from django.contrib.auth.hashers import MD5PasswordHasher
from django.test import Client

from tests.cast import PASSWORD, Cast, make_user
from webapp.accounts.models import AuditEntry

LOGIN = "/accounts/login/"


def attempt(client: Client, email: str = "alice@example.com", password: str = "wrong", **extra: str) -> str:
    response = client.post(LOGIN, {"login": email, "password": password}, **extra)
    return "in" if response.status_code == 302 else response.content.decode()


def test_it_works(cast: Cast, client: Client) -> None:
    response = client.post(LOGIN, {"login": "Alice@Example.com", "password": PASSWORD})
    assert response["Location"] == "/"
    assert AuditEntry.objects.filter(action="login", actor=cast.alice, ip="127.0.0.1").exists()


def test_the_answer_does_not_tell_who_has_an_account(cast: Cast, client: Client) -> None:
    known, unknown = attempt(client), attempt(client, email="nobody@example.com")
    said = "The email address and/or password you specified are not correct."
    assert said in known
    assert said in unknown
    assert len(known) == len(unknown) - len("nobody") + len("alice")
    tried = AuditEntry.objects.filter(action="login.failed").values_list("target", flat=True)
    assert set(tried) == {"alice@example.com", "nobody@example.com"}


def test_failures_hold_no_password(cast: Cast, client: Client) -> None:
    attempt(client, password="hunter2hunter2")
    assert "hunter2" not in str(list(AuditEntry.objects.values()))


def test_after_ten_failures_even_the_right_password_waits(cast: Cast, client: Client) -> None:
    for _ in range(10):
        assert "not correct" in attempt(client)
    assert "Too many" in attempt(client, password=PASSWORD)


def test_a_stranger_elsewhere_cannot_lock_a_person_out(cast: Cast, client: Client) -> None:
    for _ in range(11):
        attempt(client, REMOTE_ADDR="203.0.113.9")
    assert attempt(client, password=PASSWORD) == "in"


def test_a_forged_address_does_not_help(cast: Cast, client: Client) -> None:
    for number in range(10):
        attempt(client, HTTP_X_FORWARDED_FOR=f"203.0.113.{number}")
    assert "Too many" in attempt(client, password=PASSWORD, HTTP_X_FORWARDED_FOR="203.0.113.99")


def test_right_passwords_are_not_counted(cast: Cast) -> None:
    for _ in range(12):
        assert attempt(Client(), password=PASSWORD) == "in"


def test_a_closed_account_stays_out(cast: Cast, client: Client) -> None:
    cast.bob.is_active = False
    cast.bob.save()
    response = client.post(LOGIN, {"login": "bob@example.com", "password": PASSWORD}, follow=True)
    assert b"This account is closed" in response.content
    assert "_auth_user_id" not in client.session


@pytest.mark.parametrize("email", ["", "no address", "a\x00@example.com", "x" * 500 + "@example.com"])
def test_odd_input_is_a_form_error(cast: Cast, client: Client, email: str) -> None:
    assert client.post(LOGIN, {"login": email, "password": PASSWORD}).status_code == 200


@pytest.mark.parametrize(
    "to",
    [
        "//evil.example",
        "https://evil.example/",
        "javascript:alert(1)",
        "/\\evil.example",
        "http://localhost:1/",
        "\t//evil.example",
    ],
)
def test_it_leads_nowhere_else(cast: Cast, client: Client, to: str) -> None:
    response = client.post(LOGIN, {"login": "alice@example.com", "password": PASSWORD, "next": to})
    assert response["Location"] == "/"
    assert client.get(LOGIN, {"next": to})["Location"] == "/"


def test_it_comes_back_to_the_page_asked_for(cast: Cast, client: Client) -> None:
    assert client.get("/settings/")["Location"] == "/accounts/login/?next=/settings/"
    response = client.post(LOGIN, {"login": "alice@example.com", "password": PASSWORD, "next": "/settings/"})
    assert response["Location"] == "/settings/"


def test_the_session_gets_a_new_key(cast: Cast, client: Client) -> None:
    client.get(LOGIN)
    session = client.session
    session["planted"] = True
    session.save()
    before = session.session_key
    attempt(client, password=PASSWORD)
    assert client.session.session_key != before


def test_logging_out_takes_a_post(cast: Cast) -> None:
    client = cast.client("alice")
    assert client.get("/accounts/logout/").status_code == 200
    assert "_auth_user_id" in client.session
    assert client.post("/accounts/logout/")["Location"] == LOGIN
    assert "_auth_user_id" not in client.session


class CountingHasher(MD5PasswordHasher):
    """Hashing is what takes time in a login; a stopwatch on a busy machine measures the machine."""

    hashed = 0

    def encode(self, password: str, salt: str) -> str:
        CountingHasher.hashed += 1
        return str(super().encode(password, salt))


def test_unknown_people_wait_as_long_as_known_ones(client: Client, db: None, settings: Any) -> None:
    settings.PASSWORD_HASHERS = [f"{__name__}.CountingHasher"]
    make_user("alice@example.com")
    costs = []
    for email in ("alice@example.com", "nobody@example.com"):
        CountingHasher.hashed = 0
        attempt(client, email=email)
        costs.append(CountingHasher.hashed)
    assert costs == [1, 1]
