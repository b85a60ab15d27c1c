"""Renaming a team."""

import pytest

from tests.cast import Cast
from webapp.accounts.models import AuditEntry


def test_it_works_and_the_address_stays(cast: Cast) -> None:
    response = cast.client("alice").post("/teams/red-team/rename/", {"name": "Crimson"})
    assert response["Location"] == "/teams/red-team/"
    cast.team.refresh_from_db()
    assert (cast.team.name, cast.team.slug) == ("Crimson", "red-team")
    assert AuditEntry.objects.get(action="team.rename").target == "Red team to Crimson"


@pytest.mark.parametrize(("who", "status"), [("bob", 403), ("vera", 403), ("charlie", 404)])
def test_it_needs_an_owner(cast: Cast, who: str, status: int) -> None:
    assert cast.client(who).post("/teams/red-team/rename/", {"name": "Mine"}).status_code == status
    cast.team.refresh_from_db()
    assert cast.team.name == "Red team"


def test_a_bad_name_is_shown_beside_its_field(cast: Cast) -> None:
    response = cast.client("alice").post("/teams/red-team/rename/", {"name": ""})
    assert response.status_code == 422
    assert b"This field is required" in response.content


def test_mass_assignment_changes_nothing_else(cast: Cast) -> None:
    cast.client("alice").post("/teams/red-team/rename/", {"name": "Crimson", "slug": "x", "personal_of": cast.alice.pk})
    cast.team.refresh_from_db()
    assert (cast.team.slug, cast.team.personal_of) == ("red-team", None)
