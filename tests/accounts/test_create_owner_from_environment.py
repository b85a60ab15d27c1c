"""The first start without a browser: the owner named by the environment."""

import pytest
from django.core.exceptions import ImproperlyConfigured

from tests.cast import Cast
from webapp.accounts.models import User
from webapp.accounts.services import create_owner_from_environment

EMAIL, PASSWORD = "DJANGO_SUPERUSER_EMAIL", "DJANGO_SUPERUSER_PASSWORD"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(EMAIL, "Owner@example.com")
    monkeypatch.setenv(PASSWORD, "correct horse battery")


@pytest.mark.django_db
def test_it_makes_the_owner() -> None:
    user = create_owner_from_environment()
    assert user == User.objects.get(email="owner@example.com", is_staff=True)
    assert user.check_password("correct horse battery")
    assert user.personal_team.name == "owner"


@pytest.mark.django_db
def test_a_second_start_does_nothing() -> None:
    assert create_owner_from_environment()
    assert create_owner_from_environment() is None
    assert User.objects.count() == 1


def test_it_leaves_a_server_with_users_alone(cast: Cast) -> None:
    assert create_owner_from_environment() is None
    assert User.objects.count() == 4


@pytest.mark.django_db
def test_without_the_variables_it_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(EMAIL)
    monkeypatch.delenv(PASSWORD)
    assert create_owner_from_environment() is None


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("name", "value", "named"),
    [
        (EMAIL, "", "DJANGO_SUPERUSER_EMAIL is not set"),
        (PASSWORD, "", "DJANGO_SUPERUSER_PASSWORD is not set"),
        (EMAIL, "owner", "'owner', which is no e-mail address"),
        (PASSWORD, "12345678", "too common"),
        (PASSWORD, "short", "too short"),
    ],
)
def test_a_wrong_value_stops_with_a_sentence(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, named: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ImproperlyConfigured, match=named):
        create_owner_from_environment()
    assert not User.objects.exists()
