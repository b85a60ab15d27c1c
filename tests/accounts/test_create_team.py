"""Making a team."""

import pytest
from django.db import connection
from django.test import Client

from tests.cast import Cast, make_user
from webapp.accounts import services
from webapp.accounts.models import Role, Team, User


def test_it_works(cast: Cast) -> None:
    client = cast.client("charlie")
    response = client.post("/teams/", {"name": "Blue team"})
    team = Team.objects.get(slug="blue-team")
    assert response["Location"] == "/teams/blue-team/"
    assert team.role_of(cast.charlie) == Role.OWNER
    assert client.session["team"] == str(team.pk)


def test_a_taken_slug_gets_a_number(cast: Cast) -> None:
    slugs = [services.create_team(user=cast.charlie, name="Red team").slug for _ in range(2)]
    assert slugs == ["red-team-2", "red-team-3"]


@pytest.mark.parametrize(("name", "slug"), [("红队", "team"), ("Équipe № 1", "equipe-no-1"), ("--- !", "team")])
def test_any_name_gets_a_readable_slug(cast: Cast, name: str, slug: str) -> None:
    assert services.create_team(user=cast.charlie, name=name).slug == slug


@pytest.mark.parametrize("name", ["", "   ", "x" * 81, "a\x00b"])
def test_it_refuses_a_bad_name(cast: Cast, name: str) -> None:
    response = cast.client("charlie").post("/teams/", {"name": name})
    assert response.status_code == 422
    assert Team.objects.filter(memberships__user=cast.charlie).count() == 1


def test_it_wants_a_login(cast: Cast, client: Client) -> None:
    response = client.post("/teams/", {"name": "Blue team"})
    assert response["Location"].startswith("/accounts/login/")
    assert not Team.objects.filter(slug="blue-team").exists()


@pytest.mark.django_db
def test_a_user_made_by_djangos_command_gets_a_team_when_they_come(client: Client) -> None:
    user = User.objects.create_superuser("dora@example.com", "correct horse battery")
    client.force_login(user)
    assert client.get("/teams/").status_code == 200
    assert user.personal_team.role_of(user) == Role.OWNER


@pytest.mark.django_db(transaction=True)
def test_two_at_once_get_two_slugs() -> None:
    from concurrent.futures import ThreadPoolExecutor

    user = make_user("dora@example.com")

    def make(_: int) -> str:
        try:
            return services.create_team(user=user, name="Same").slug
        finally:
            connection.close()

    with ThreadPoolExecutor(6) as pool:
        slugs = list(pool.map(make, range(6)))
    assert len(set(slugs)) == 6
