"""Joining a team by its link."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.db import connection
from django.test import Client
from django.utils import timezone

from tests.cast import PASSWORD, Cast, make_cast
from tests.make import make_invitation
from webapp.accounts import services
from webapp.accounts.models import AuditEntry, Invitation, Membership, Role, User
from webapp.common.errors import UserError

TOKEN = "a" * 43
ADDRESS = f"/invitations/{TOKEN}/"
NEWCOMER = {"email": "Dora@example.com", "name": "Dora", "password": PASSWORD}


@pytest.fixture
def invitation(cast: Cast) -> Invitation:
    return make_invitation(cast.team, cast.alice, token=TOKEN, role=Role.VIEWER)


def test_a_newcomer_makes_an_account_and_is_in(cast: Cast, invitation: Invitation, client: Client) -> None:
    assert b"Red team" in client.get(ADDRESS).content
    assert client.post(ADDRESS, NEWCOMER)["Location"] == "/"
    dora = User.objects.get(email="dora@example.com")
    assert cast.team.role_of(dora) == Role.VIEWER
    assert dora.personal_team.role_of(dora) == Role.OWNER
    assert not dora.is_staff
    assert client.session["team"] == str(cast.team.pk)
    assert AuditEntry.objects.filter(action="invitation.accept", actor=dora, team=cast.team).exists()


def test_somebody_logged_in_joins_by_a_button(cast: Cast, invitation: Invitation) -> None:
    client = cast.client("charlie")
    assert b"Join Red team" in client.get(ADDRESS).content
    assert cast.team.role_of(cast.charlie) is None
    client.post(ADDRESS)
    assert cast.team.role_of(cast.charlie) == Role.VIEWER
    invitation.refresh_from_db()
    assert (invitation.used_by, invitation.used_at is not None) == (cast.charlie, True)


def test_somebody_with_an_account_logs_in_and_comes_back(cast: Cast, invitation: Invitation, client: Client) -> None:
    assert f"/accounts/login/?next={ADDRESS}".encode() in client.get(ADDRESS).content
    login = {"login": "charlie@example.com", "password": PASSWORD, "next": ADDRESS}
    assert client.post("/accounts/login/", login)["Location"] == ADDRESS


def test_it_works_once(cast: Cast, invitation: Invitation, client: Client) -> None:
    cast.client("charlie").post(ADDRESS)
    for response in (client.get(ADDRESS), client.post(ADDRESS, NEWCOMER)):
        assert response.status_code == 410
        assert b"was used already" in response.content
    assert not User.objects.filter(email="dora@example.com").exists()


@pytest.mark.parametrize("address", [ADDRESS[:-2] + "b/", "/invitations/guess/"])
def test_a_changed_link_opens_nothing(cast: Cast, invitation: Invitation, client: Client, address: str) -> None:
    assert client.get(address).status_code == 410
    assert b"Red team" not in client.get(address).content


def test_it_ends_after_its_time(cast: Cast, invitation: Invitation) -> None:
    Invitation.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    assert cast.client("charlie").post(ADDRESS).status_code == 410
    assert cast.team.role_of(cast.charlie) is None


def test_a_member_keeps_their_role_and_the_link_stays_good(cast: Cast, client: Client) -> None:
    make_invitation(cast.team, cast.alice, token=TOKEN, role=Role.OWNER)
    cast.client("bob").post(ADDRESS)
    assert cast.team.role_of(cast.bob) == Role.MEMBER
    assert Invitation.objects.get().used_at is None


def test_the_role_is_the_invitations(cast: Cast, invitation: Invitation, client: Client) -> None:
    client.post(ADDRESS, NEWCOMER | {"role": "owner", "is_staff": "on", "team": cast.charlie.personal_team.pk})
    dora = User.objects.get(email="dora@example.com")
    assert (cast.team.role_of(dora), dora.is_staff) == (Role.VIEWER, False)
    assert Membership.objects.filter(user=dora).count() == 2


@pytest.mark.parametrize(
    ("field", "value"), [("email", "CHARLIE@example.com"), ("email", "x"), ("name", ""), ("password", "12345678")]
)
def test_a_bad_value_uses_nothing_up(
    cast: Cast, invitation: Invitation, client: Client, field: str, value: str
) -> None:
    response = client.post(ADDRESS, NEWCOMER | {field: value})
    assert response.status_code == 422
    assert field in response.context["form"].errors
    invitation.refresh_from_db()
    assert invitation.used_at is None


@pytest.mark.django_db(transaction=True)
def test_of_many_at_once_one_gets_in() -> None:
    cast = make_cast()
    make_invitation(cast.team, cast.alice, token=TOKEN)

    def register(number: int) -> bool:
        try:
            services.register_invited(token=TOKEN, email=f"m{number}@example.com", name="M", password=PASSWORD)
        except UserError as error:
            assert error.code == "invitation_used"
            return False
        finally:
            connection.close()
        return True

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(register, range(8)))
    assert won.count(True) == 1
    assert cast.team.memberships.count() == 4
    assert User.objects.count() == 5  # the others' accounts were not made either
