"""Keys: what a good one is, and which team it is about."""

import httpx
import openai
import pytest
from django.test import Client
from openai import OpenAI

from tests.api.conftest import Connect
from tests.api.live import LiveServer
from tests.cast import Cast
from tests.make import make_dataset
from webapp.accounts import keys
from webapp.accounts.models import ApiKey


def team_names(client: OpenAI) -> set[str]:
    """Names of the datasets that are listed; each team here has one of its own name."""
    return {file.filename for file in client.files.list()}


@pytest.fixture
def datasets(people: Cast) -> None:
    make_dataset(people.team, original_name="red")
    make_dataset(people.bob.personal_team, original_name="bobs")
    make_dataset(people.charlie.personal_team, original_name="charlies")


@pytest.mark.parametrize("key", ["sk-wrong", "lr_000000000000_" + "x" * 43, "ü", "x" * 5000])
def test_a_wrong_key(live: LiveServer, people: Cast, key: str) -> None:
    response = httpx.get(f"{live.address}/v1/models", headers={"Authorization": f"Bearer {key}".encode()})
    assert response.status_code == 401
    assert response.json()["error"]["code"] == "invalid_api_key"
    assert response.headers["www-authenticate"] == "Bearer"
    assert key not in response.text


@pytest.mark.parametrize("header", [None, "", "Bearer", "Basic eDp5", "lr_0"])
def test_no_key(live: LiveServer, people: Cast, header: str | None) -> None:
    headers = {} if header is None else {"Authorization": header}
    assert httpx.get(f"{live.address}/v1/models", headers=headers).status_code == 401


def test_the_client_says_so(connect: Connect) -> None:
    with pytest.raises(openai.AuthenticationError) as caught:
        connect("bob", api_key="sk-old").models.list()
    assert caught.value.code == "invalid_api_key"


def test_a_revoked_key_and_a_person_who_left(connect: Connect, people: Cast) -> None:
    client = connect("bob")
    assert client.models.list().data == []
    keys.revoke(ApiKey.objects.get(), actor=people.bob)
    with pytest.raises(openai.AuthenticationError):
        client.models.list()
    client = connect("bob")
    people.bob.is_active = False
    people.bob.save()
    with pytest.raises(openai.AuthenticationError):
        client.models.list()


def test_a_login_is_no_key(cast: Cast) -> None:
    assert cast.client("alice").get("/v1/models").status_code == 401


def test_a_key_needs_no_csrf_token(cast: Cast) -> None:
    key = keys.create(user=cast.bob, name="script")
    client = Client(enforce_csrf_checks=True)
    body = {"filename": "a", "purpose": "batch", "mime_type": "x", "bytes": 1}
    headers = {"Authorization": f"Bearer {key}"}
    assert client.post("/v1/uploads", body, content_type="application/json", headers=headers).status_code == 200


def test_the_team_worked_in_last_is_meant(client: OpenAI, people: Cast, datasets: None) -> None:
    assert team_names(client) == {"red"}
    people.team.memberships.filter(user=people.bob).delete()
    assert team_names(client) == {"bobs"}


@pytest.mark.parametrize("option", ["organization", "project"])
def test_a_header_names_the_team(connect: Connect, people: Cast, datasets: None, option: str) -> None:
    assert team_names(connect("bob", **{option: "bob-own"})) == {"bobs"}
    assert team_names(connect("bob", **{option: "red-team"})) == {"red"}


@pytest.mark.parametrize("slug", ["charlie-own", "org-123", "no such"])
def test_a_header_that_names_no_team_of_mine(connect: Connect, people: Cast, slug: str) -> None:
    with pytest.raises(openai.AuthenticationError) as caught:
        connect("bob", organization=slug).files.list()
    assert (caught.value.code, caught.value.param) == ("invalid_organization", "OpenAI-Organization")


def test_the_project_counts_before_the_organization(connect: Connect, people: Cast, datasets: None) -> None:
    assert team_names(connect("bob", organization="red-team", project="bob-own")) == {"bobs"}


def test_a_use_is_noted(client: OpenAI, people: Cast) -> None:
    assert ApiKey.objects.get().last_used_at is None
    client.models.list()
    assert ApiKey.objects.get().last_used_at is not None
