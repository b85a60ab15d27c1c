"""Making and withdrawing invitations."""

from datetime import timedelta

import pytest
from django.utils import timezone

from tests.cast import Cast
from tests.make import make_invitation
from webapp.accounts.models import AuditEntry, Invitation, Role


def test_the_link_is_shown_once(cast: Cast) -> None:
    client = cast.client("alice")
    response = client.post("/teams/red-team/invite/", {"role": "viewer"})
    link = response.context["new_link"]
    assert response.status_code == 200
    assert link.encode() in response.content
    assert "no-store" in response["Cache-Control"]
    assert link.encode() not in client.get("/teams/red-team/").content
    made = Invitation.objects.get()
    assert (made.role, made.team, made.created_by) == (Role.VIEWER, cast.team, cast.alice)
    assert timedelta(days=6) < made.expires_at - timezone.now() <= timedelta(days=7)
    assert made.token_hash not in link


def test_htmx_gets_the_fragment(cast: Cast) -> None:
    response = cast.client("alice").post("/teams/red-team/invite/", {"role": "member"}, headers={"HX-Request": "true"})
    assert b"<html" not in response.content
    assert response.context["new_link"].encode() in response.content


@pytest.mark.parametrize("role", ["", "admin", "superuser"])
def test_it_refuses_an_unknown_role(cast: Cast, role: str) -> None:
    assert cast.client("alice").post("/teams/red-team/invite/", {"role": role}).status_code == 422
    assert not Invitation.objects.exists()


@pytest.mark.parametrize(("who", "status"), [("bob", 403), ("vera", 403), ("charlie", 404)])
def test_it_needs_an_owner(cast: Cast, who: str, status: int) -> None:
    assert cast.client(who).post("/teams/red-team/invite/", {"role": "owner"}).status_code == status
    assert not Invitation.objects.exists()


def test_an_owner_withdraws_it(cast: Cast) -> None:
    invitation = make_invitation(cast.team, cast.alice)
    cast.client("alice").post(f"/teams/red-team/invitations/{invitation.pk}/delete/")
    assert not Invitation.objects.exists()
    assert AuditEntry.objects.filter(action="invitation.delete", team=cast.team).exists()


def test_an_invitation_of_another_team_is_not_reached_through_ones_own(cast: Cast) -> None:
    invitation = make_invitation(cast.charlie.personal_team, cast.charlie)
    response = cast.client("alice").post(f"/teams/red-team/invitations/{invitation.pk}/delete/")
    assert response.status_code == 404
    assert Invitation.objects.exists()


def test_others_do_not_see_invitations(cast: Cast) -> None:
    make_invitation(cast.team, cast.alice)
    assert b"Invitations" not in cast.client("bob").get("/teams/red-team/").content
