"""The page about oneself."""

from tests.cast import Cast
from webapp.accounts.models import User


def test_the_name_is_saved(cast: Cast) -> None:
    assert cast.client("alice").post("/settings/", {"name": "Alice A."})["Location"] == "/settings/"
    cast.alice.refresh_from_db()
    assert cast.alice.name == "Alice A."


def test_nothing_else_is(cast: Cast) -> None:
    cast.client("bob").post(
        "/settings/",
        {"name": "Bob", "email": "root@example.com", "is_staff": "on", "is_superuser": "1", "password": "x"},
    )
    bob = User.objects.get(pk=cast.bob.pk)
    assert (bob.email, bob.is_staff, bob.is_superuser, bob.password) == (
        cast.bob.email,
        False,
        False,
        cast.bob.password,
    )


def test_a_bad_name_is_shown(cast: Cast) -> None:
    response = cast.client("alice").post("/settings/", {"name": "x" * 81})
    assert response.status_code == 422
    assert b"field-error" in response.content


def test_the_theme_and_the_address_are_on_it(cast: Cast) -> None:
    client = cast.client("alice")
    client.cookies["theme"] = "dark"
    page = client.get("/settings/").content.decode()
    assert "alice@example.com" in page
    assert 'data-theme-choice="dark" checked' in page
