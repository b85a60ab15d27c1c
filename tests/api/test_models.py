"""Models over the official client: base models, adapters, and who may see and delete what."""

import asyncio

import httpx
import openai
import pytest
from openai import OpenAI

from tests.api.conftest import Connect
from tests.api.live import LiveServer
from tests.cast import Cast
from tests.make import make_adapter, make_base, make_share
from webapp.adapters.models import Adapter


def test_bases_and_adapters_are_listed(client: OpenAI, people: Cast) -> None:
    base = make_base(name="HuggingFaceTB/SmolLM2-135M-Instruct")
    adapter = make_adapter(people.team, base, name="My style, v2")
    models = client.models.list().data
    name = f"ft:huggingfacetb-smollm2-135m-instruct:red-team:my-style-v2:{adapter.pk.hex[:12]}"
    assert [model.id for model in models] == ["huggingfacetb-smollm2-135m-instruct", name]
    assert [model.owned_by for model in models] == ["lowrank", "red-team"]
    assert models[0].created == int(base.created_at.timestamp())
    assert models[1].model_extra == {"parent": "huggingfacetb-smollm2-135m-instruct", "root": base.name}


def test_a_model_is_found_by_each_of_its_names(client: OpenAI, people: Cast) -> None:
    base = make_base(name="org/Model-1.5B")
    adapter = make_adapter(people.team, base)
    for name in ("org/Model-1.5B", "org-model-1.5b"):
        assert client.models.retrieve(name).id == "org-model-1.5b"
    listed = client.models.list().data[1].id
    assert client.models.retrieve(listed).id == listed
    adapter.name = "renamed"
    adapter.save()
    assert client.models.retrieve(listed).id == listed.replace("lowrank-style", "renamed")


@pytest.mark.parametrize("name", ["gpt-4", "ft:gpt-4", "ft:a:b:c:0123456789ab", "ft:a:b:c:%", "a/b?c", "ft:\u0000:0"])
def test_an_unknown_model_is_not_found(client: OpenAI, name: str) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve(name)
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


def test_a_foreign_adapter_looks_like_an_unknown_one(connect: Connect, people: Cast) -> None:
    adapter = make_adapter(people.team, make_base())
    name = connect("bob").models.list().data[1].id
    stranger = connect("charlie")
    assert len(stranger.models.list().data) == 1
    with pytest.raises(openai.NotFoundError) as caught:
        stranger.models.retrieve(name)
    assert caught.value.code == "model_not_found"
    make_share(adapter, people.charlie.personal_team)
    assert stranger.models.retrieve(name).owned_by == "red-team"
    assert stranger.models.list().data[1].id == name
    with pytest.raises(openai.PermissionDeniedError):
        stranger.models.delete(name)


def test_members_delete_adapters_and_viewers_do_not(connect: Connect, people: Cast) -> None:
    adapter = make_adapter(people.team, make_base())
    name = connect("vera").models.list().data[1].id
    with pytest.raises(openai.PermissionDeniedError) as caught:
        connect("vera").models.delete(name)
    assert caught.value.type == "permission_error"
    assert connect("bob").models.delete(name).deleted
    assert not Adapter.objects.exists()
    assert not adapter.folder.exists()
    with pytest.raises(openai.NotFoundError):
        connect("bob").models.delete(name)


def test_nobody_deletes_a_base_model(connect: Connect, people: Cast) -> None:
    make_base(name="tiny")
    with pytest.raises(openai.PermissionDeniedError):
        connect("alice").models.delete("tiny")


def test_two_bases_of_one_slug_are_two_models(client: OpenAI, people: Cast) -> None:
    for name in ("org/model", "Org Model", "org-model"):
        make_base(name=name)
    assert [model.id for model in client.models.list()] == ["org/model", "Org Model", "org-model"]
    assert client.models.retrieve("org-model").model_extra == {"parent": None, "root": "org-model"}


def test_a_slash_at_the_end_changes_nothing(live: LiveServer, client: OpenAI, people: Cast) -> None:
    headers = {"Authorization": f"Bearer {client.api_key}"}
    assert httpx.get(f"{live.address}/v1/models/", headers=headers).json()["object"] == "list"


def test_the_async_client_sees_the_same(client: OpenAI, people: Cast) -> None:
    make_base()

    async def names() -> list[str]:
        async with openai.AsyncOpenAI(api_key=client.api_key, base_url=client.base_url) as other:
            return [model.id async for model in other.models.list()]

    assert asyncio.run(names()) == ["tiny"]
