"""API keys: made once, proved by their hash, revoked at once."""

import re
from datetime import timedelta

import pytest
from django.utils import timezone

from tests.cast import Cast
from webapp.accounts import keys
from webapp.accounts.models import ApiKey, AuditEntry


def test_it_is_shown_once_and_never_stored(cast: Cast) -> None:
    client = cast.client("vera")
    response = client.post("/settings/keys/", {"name": "laptop"})
    key = response.context["new_key"]
    assert re.fullmatch(keys.SHAPE, key)
    assert key.encode() in response.content
    assert "no-store" in response["Cache-Control"]
    assert key.encode() not in client.get("/settings/").content
    assert key.split("_", 2)[2] not in str(list(ApiKey.objects.values())) + str(list(AuditEntry.objects.values()))
    assert keys.user_of(key) == cast.vera


def test_htmx_gets_the_fragment(cast: Cast) -> None:
    response = cast.client("vera").post("/settings/keys/", {"name": "laptop"}, headers={"HX-Request": "true"})
    assert b"<html" not in response.content
    assert response.context["new_key"].encode() in response.content


@pytest.mark.parametrize("name", ["", "x" * 81])
def test_it_wants_a_name(cast: Cast, name: str) -> None:
    assert cast.client("vera").post("/settings/keys/", {"name": name}).status_code == 422
    assert not ApiKey.objects.exists()


def test_a_wrong_key_is_nobodys(cast: Cast) -> None:
    key = keys.create(user=cast.vera, name="laptop")
    other = keys.create(user=cast.bob, name="laptop")
    mixed = "_".join(key.split("_", 2)[:2] + [other.split("_", 2)[2]])
    for wrong in (
        "",
        "lr_",
        key[:-1],
        key + "x",
        key.upper(),
        mixed,
        "lr_000000000000_" + "a" * 43,
        key + "\n",
        "\x00",
    ):
        assert keys.user_of(wrong) is None


def test_it_is_revoked_at_once(cast: Cast) -> None:
    key = keys.create(user=cast.vera, name="laptop")
    row = ApiKey.objects.get()
    cast.client("vera").post(f"/settings/keys/{row.pk}/revoke/")
    assert keys.user_of(key) is None
    actions = AuditEntry.objects.filter(actor=cast.vera).values_list("action", flat=True)
    assert {"key.create", "key.revoke"} <= set(actions)


def test_nobody_revokes_anothers(cast: Cast) -> None:
    key = keys.create(user=cast.vera, name="laptop")
    assert cast.client("alice").post(f"/settings/keys/{ApiKey.objects.get().pk}/revoke/").status_code == 404
    assert keys.user_of(key) == cast.vera


def test_a_closed_account_has_no_working_key(cast: Cast) -> None:
    key = keys.create(user=cast.vera, name="laptop")
    cast.vera.is_active = False
    cast.vera.save()
    assert keys.user_of(key) is None


def test_use_is_noted_but_not_with_every_call(cast: Cast) -> None:
    key = keys.create(user=cast.vera, name="laptop")
    keys.user_of(key)
    first = ApiKey.objects.get().last_used_at
    keys.user_of(key)
    assert first is not None
    assert ApiKey.objects.get().last_used_at == first
    ApiKey.objects.update(last_used_at=timezone.now() - timedelta(minutes=5))
    keys.user_of(key)
    assert ApiKey.objects.get().last_used_at >= first
