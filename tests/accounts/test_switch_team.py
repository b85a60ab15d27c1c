"""Choosing the team to work in."""

from django.test import Client

from tests.cast import Cast


def test_it_works(cast: Cast) -> None:
    client = cast.client("bob")
    assert client.post("/teams/bob-own/switch/")["Location"] == "/"
    assert client.get("/teams/").context["request"].team == cast.bob.personal_team


def test_the_next_login_goes_on_in_the_team_chosen_last(cast: Cast) -> None:
    cast.client("bob").post("/teams/red-team/switch/")
    later = Client()
    later.force_login(cast.bob)
    assert later.get("/teams/").context["request"].team == cast.team
    cast.team.memberships.filter(user=cast.bob).delete()
    assert later.get("/teams/").context["request"].team == cast.bob.personal_team


def test_a_strangers_team_is_not_found(cast: Cast) -> None:
    client = cast.client("charlie")
    assert client.post("/teams/red-team/switch/").status_code == 404
    assert client.get("/teams/").context["request"].team == cast.charlie.personal_team


def test_a_team_left_behind_in_the_session_is_not_worked_in(cast: Cast) -> None:
    client = cast.client("charlie")
    session = client.session
    session["team"] = str(cast.team.pk)
    session.save()
    assert client.get("/teams/").context["request"].team == cast.charlie.personal_team


def test_it_rejects_get(cast: Cast) -> None:
    assert cast.client("bob").get("/teams/red-team/switch/").status_code == 405
