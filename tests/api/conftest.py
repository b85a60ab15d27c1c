"""The API as clients meet it: a real server on this process's database, and the official client in front of it."""

from collections.abc import Callable, Iterator

import pytest
from django.core.cache import cache
from openai import OpenAI

from tests.api.live import LiveServer
from tests.cast import Cast, make_cast
from webapp.accounts import keys

Connect = Callable[..., OpenAI]


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
    live = item.funcargs.get("live") if hasattr(item, "funcargs") else None
    if live and report.failed:
        report.sections.append(("server", live.log()[-3000:]))
    return report
