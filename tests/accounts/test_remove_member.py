"""Taking somebody out of a team, and leaving it."""

import pytest

from tests.cast import Cast
from tests.make import make_dataset, make_invitation
from webapp.accounts.models import AuditEntry, Invitation, Role
from webapp.datasets.models import Dataset


def remove(cast: Cast, who: str, whom: str) -> int:
    return cast.client(who).post(f"/teams/red-team/members/{getattr(cast, whom).pk}/remove/").status_code


def test_it_works_and_everything_ends_at_once(cast: Cast) -> None:
    make_dataset(cast.team, created_by=cast.bob)
    bob = cast.client("bob")
    assert bob.get("/teams/red-team/").status_code == 200
    assert remove(cast, "alice", "bob") == 302
    assert bob.get("/teams/red-team/").status_code == 404
    assert not Dataset.objects.visible_to(cast.bob).exists()
    assert bob.get("/teams/").context["request"].team == cast.bob.personal_team
    assert AuditEntry.objects.get(action="member.remove").target == "bob@example.com"


def test_links_of_the_removed_do_not_let_them_back_in(cast: Cast) -> None:
    cast.team.memberships.filter(user=cast.bob).update(role=Role.OWNER)
    make_invitation(cast.team, cast.bob)
    remove(cast, "alice", "bob")
    assert not Invitation.objects.exists()


@pytest.mark.parametrize(("who", "status"), [("bob", 403), ("vera", 403), ("charlie", 404)])
def test_it_needs_an_owner(cast: Cast, who: str, status: int) -> None:
    assert remove(cast, who, "alice") == status
    assert cast.team.memberships.count() == 3


def test_the_last_owner_cannot_be_removed(cast: Cast) -> None:
    assert remove(cast, "alice", "alice") == 400
    assert cast.team.role_of(cast.alice) == Role.OWNER


def test_somebody_outside_the_team_is_not_found(cast: Cast) -> None:
    assert remove(cast, "alice", "charlie") == 404


@pytest.mark.parametrize("who", ["bob", "vera"])
def test_anybody_may_leave(cast: Cast, who: str) -> None:
    assert cast.client(who).post("/teams/red-team/leave/")["Location"] == "/teams/"
    assert cast.team.role_of(getattr(cast, who)) is None
    assert AuditEntry.objects.filter(action="team.leave", actor=getattr(cast, who)).exists()


def test_the_last_owner_cannot_leave(cast: Cast) -> None:
    assert cast.client("alice").post("/teams/red-team/leave/").status_code == 400


def test_nobody_leaves_their_personal_team(cast: Cast) -> None:
    assert cast.client("bob").post("/teams/bob-own/leave/").status_code == 400
