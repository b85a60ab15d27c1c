"""The API as clients meet it: a real server on this process's database, and the official client in front of it."""

import json
from collections.abc import Callable, Iterator
from functools import partial
from hashlib import sha256
from pathlib import Path

import pytest
from django.core.cache import cache
from openai import OpenAI

from tests.api.answering import Answering, answering_server
from tests.api.live import LiveServer
from tests.cast import Cast, make_cast
from tests.chat.conftest import ENDLESS, broker, endless_folder, live_streams, tiny_folder
from tests.make import make_adapter, make_base
from tests.test_permission_matrix import World, fresh_world
from tests.tiny import CHATML, CONTEXT, make_tiny_base
from tests.trainer.adapters import make_adapter as write_adapter
from webapp.accounts import keys
from webapp.adapters.models import Adapter, BaseModel

Connect = Callable[..., OpenAI]
TOOLS = "{% for tool in tools or [] %}{{ '<|im_start|>tool\\n' + tool | tojson + '<|im_end|>\\n' }}{% endfor %}"
__all__ = ["broker", "endless_folder", "live_streams", "tiny_folder"]  # fixtures that come from the chat's tests


@pytest.fixture(autouse=True)
def fresh_cache() -> Iterator[None]:
    """Rates and finished requests are counted there."""
    cache.clear()
    yield
    cache.clear()


@pytest.fixture(scope="session")
def live(django_db_setup: None) -> Iterator[LiveServer]:
    with LiveServer() as server:
        yield server


@pytest.fixture
def world(db: None) -> Iterator[World]:
    """One of everything that an address may name, with bob in its team."""
    with fresh_world() as made:
        made.cast.bob.last_team = made.cast.team
        made.cast.bob.save()
        yield made


@pytest.fixture
def people(transactional_db: None) -> Cast:
    """The cast, committed: the server reads on connections of its own. The red team is where they worked last."""
    cast = make_cast()
    for user in (cast.alice, cast.bob, cast.vera):
        user.last_team = cast.team
        user.save()
    return cast


@pytest.fixture
def connect(live: LiveServer, people: Cast) -> Iterator[Connect]:
    """`connect("bob")` is the official client with a key of his; options are the client's own."""
    made: list[OpenAI] = []

    def client(who: str = "bob", **options: object) -> OpenAI:
        key = keys.create(user=getattr(people, who), name="script")
        settings = {"api_key": key, "base_url": f"{live.address}/v1", "max_retries": 0, "timeout": 20.0}
        made.append(OpenAI(**settings | options))  # type: ignore[arg-type]  # any of the client's options
        return made[-1]

    yield client
    for one in made:
        one.close()


@pytest.fixture
def client(connect: Connect) -> OpenAI:
    return connect("bob")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    given = getattr(item, "funcargs", {})
    if report.failed and "live" in given:
        report.sections.append(("server", given["live"].log()[-3000:]))
    if report.failed and "answering" in given:
        for name in ("server", "worker"):
            report.sections.append((f"answering {name}", getattr(given["answering"], name).log()[-3000:]))
    return report


# Requests that models answer


@pytest.fixture(scope="session")
def answering(django_db_setup: None, broker: str) -> Iterator[Answering]:
    with answering_server(broker) as made:
        yield made


@pytest.fixture
def base(people: Cast, tiny_folder: Path) -> BaseModel:
    facts = {
        "context_length": CONTEXT,
        "vocab_size": json.loads((tiny_folder / "config.json").read_text())["vocab_size"],
    }
    return make_base(name="tiny", path=tiny_folder, facts=facts)


@pytest.fixture
def endless(people: Cast, endless_folder: Path) -> BaseModel:
    """As in the chat's tests."""
    return make_base(name="endless", path=endless_folder, facts={"context_length": ENDLESS})


@pytest.fixture(scope="session")
def tool_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_base(tmp_path_factory.mktemp("tools"), template=TOOLS + CHATML)


@pytest.fixture
def tool_base(people: Cast, tool_folder: Path) -> BaseModel:
    """A base model whose template has tools."""
    return make_base(name="tools", path=tool_folder, facts={"context_length": CONTEXT})


@pytest.fixture
def adapter(people: Cast, base: BaseModel, tiny_folder: Path) -> Adapter:
    """One of the red team, with random weights that PEFT wrote."""
    made = make_adapter(people.team, base, name="style")
    write_adapter(tiny_folder, made.folder, seed=1)
    made.weights_sha256 = sha256((made.folder / "adapter_model.safetensors").read_bytes()).hexdigest()
    made.save()
    return made


@pytest.fixture
def talk(answering: Answering, connect: Connect, base: BaseModel) -> Callable[..., OpenAI]:
    """`talk()` is bob's official client in front of a server that answers."""
    return partial(connect, base_url=f"{answering.address}/v1", timeout=120.0)
