"""The audit trail."""

import pytest
from django.test import RequestFactory

from tests.cast import Cast
from webapp.accounts import audit
from webapp.accounts.models import AuditEntry


def test_it_notes_who_what_to_what_and_from_where(cast: Cast) -> None:
    request = RequestFactory().post("/", REMOTE_ADDR="203.0.113.7")
    entry = audit.record(actor=cast.bob, action="adapter.share", team=cast.team, target="poet", request=request)
    assert (entry.actor, entry.action, entry.team, entry.target, entry.ip) == (
        cast.bob,
        "adapter.share",
        cast.team,
        "poet",
        "203.0.113.7",
    )


@pytest.mark.parametrize("target", ["a\x00b", "two\nlines", "x" * 5000])
def test_any_text_fits(cast: Cast, target: str) -> None:
    entry = audit.record(actor=cast.bob, action="x", target=target)
    entry.refresh_from_db()
    assert len(entry.target) <= 200
    assert "\n" not in entry.target
    assert "\x00" not in entry.target


@pytest.mark.parametrize("address", ["", "not an address"])
def test_a_visitor_without_an_address_is_noted_without(cast: Cast, address: str) -> None:
    request = RequestFactory().post("/", REMOTE_ADDR=address)
    assert audit.record(actor=None, action="x", request=request).ip is None


def test_owners_read_it_and_others_do_not(cast: Cast) -> None:
    audit.record(actor=cast.bob, action="adapter.share", team=cast.team, target="poet")
    assert b"adapter.share" in cast.client("alice").get("/teams/red-team/").content
    assert b"adapter.share" not in cast.client("bob").get("/teams/red-team/").content


def test_it_outlives_the_person(cast: Cast) -> None:
    audit.record(actor=cast.charlie, action="x")
    cast.charlie.delete()
    assert AuditEntry.objects.get(action="x").actor is None
