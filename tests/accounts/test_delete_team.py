"""Deleting a team."""

import pytest

from tests.cast import Cast
from tests.make import make_base, make_conversation, make_dataset, make_turn
from webapp.accounts.models import AuditEntry, Team
from webapp.chat.models import Conversation


def test_an_empty_team_goes(cast: Cast) -> None:
    client = cast.client("alice")
    assert client.post("/teams/red-team/delete/")["Location"] == "/teams/"
    assert not Team.objects.filter(slug="red-team").exists()
    assert AuditEntry.objects.get(action="team.delete").target == "Red team"
    assert client.get("/teams/").context["request"].team == cast.alice.personal_team


def test_private_conversations_of_members_are_no_obstacle(cast: Cast) -> None:
    """Its owner cannot even see them; they go with the team."""
    make_turn(make_conversation(cast.team, cast.bob, make_base()))
    assert cast.client("alice").post("/teams/red-team/delete/")["Location"] == "/teams/"
    assert not Team.objects.filter(slug="red-team").exists()
    assert not Conversation.objects.exists()


def test_a_team_that_owns_something_stays(cast: Cast) -> None:
    make_dataset(cast.team)
    response = cast.client("alice").post("/teams/red-team/delete/")
    assert response.status_code == 409
    assert b"still owns" in response.content
    assert Team.objects.filter(slug="red-team").exists()


def test_a_personal_team_stays(cast: Cast) -> None:
    assert cast.client("alice").post("/teams/alice-own/delete/").status_code == 400
    assert Team.objects.filter(slug="alice-own").exists()


@pytest.mark.parametrize(("who", "status"), [("bob", 403), ("vera", 403), ("charlie", 404)])
def test_it_needs_an_owner(cast: Cast, who: str, status: int) -> None:
    assert cast.client(who).post("/teams/red-team/delete/").status_code == status
    assert Team.objects.filter(slug="red-team").exists()
