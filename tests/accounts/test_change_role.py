"""Changing what a member may do."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connection

from tests.cast import Cast, make_cast
from tests.make import make_invitation
from webapp.accounts import services
from webapp.accounts.models import AuditEntry, Invitation, Role
from webapp.common.errors import UserError


def change(cast: Cast, who: str, whose: str, role: str) -> int:
    address = f"/teams/red-team/members/{getattr(cast, whose).pk}/role/"
    return cast.client(who).post(address, {"role": role}).status_code


def test_it_works(cast: Cast) -> None:
    assert change(cast, "alice", "vera", "member") == 302
    assert cast.team.role_of(cast.vera) == Role.MEMBER
    entry = AuditEntry.objects.get(action="role.change")
    assert (entry.actor, entry.team, entry.target) == (cast.alice, cast.team, "vera@example.com: Viewer to Member")


@pytest.mark.parametrize(("who", "status"), [("bob", 403), ("vera", 403), ("charlie", 404)])
def test_it_needs_an_owner(cast: Cast, who: str, status: int) -> None:
    assert change(cast, who, who if who != "charlie" else "vera", "owner") == status
    assert cast.team.memberships.filter(role=Role.OWNER).count() == 1


def test_the_last_owner_stays_owner(cast: Cast) -> None:
    assert change(cast, "alice", "alice", "viewer") == 400
    assert cast.team.role_of(cast.alice) == Role.OWNER


def test_with_another_owner_one_may_step_down(cast: Cast) -> None:
    change(cast, "alice", "bob", "owner")
    make_invitation(cast.team, cast.alice)
    assert change(cast, "alice", "alice", "viewer") == 302
    assert cast.team.role_of(cast.alice) == Role.VIEWER
    assert not Invitation.objects.exists()  # links made as an owner end with the role


def test_an_unknown_role_changes_nothing(cast: Cast) -> None:
    change(cast, "alice", "vera", "god")
    assert cast.team.role_of(cast.vera) == Role.VIEWER


def test_a_personal_team_stays_its_persons(cast: Cast) -> None:
    team = cast.bob.personal_team
    team.memberships.create(user=cast.alice, role=Role.OWNER)
    response = cast.client("alice").post(f"/teams/{team.slug}/members/{cast.bob.pk}/role/", {"role": "viewer"})
    assert response.status_code == 400
    assert team.role_of(cast.bob) == Role.OWNER


def test_somebody_outside_the_team_is_not_found(cast: Cast) -> None:
    assert change(cast, "alice", "charlie", "owner") == 404


@pytest.mark.django_db(transaction=True)
def test_two_owners_who_step_down_at_once_leave_one() -> None:
    cast = make_cast()
    cast.team.memberships.filter(user=cast.bob).update(role=Role.OWNER)

    def step_down(name: str) -> bool:
        user = getattr(cast, name)
        try:
            services.change_role(membership=cast.team.memberships.get(user=user), role=Role.VIEWER, actor=user)
        except UserError as error:
            assert error.code == "last_owner"
            return False
        finally:
            connection.close()
        return True

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(step_down, ["alice", "bob"])) == [False, True]
    assert cast.team.memberships.filter(role=Role.OWNER).count() == 1
