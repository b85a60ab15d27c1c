"""How many requests a key may make in a minute."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import openai
import pytest
from pytest_django.fixtures import Settings

from tests.api.live import LiveServer
from tests.cast import Cast
from webapp.accounts import keys
from webapp.accounts.models import ApiKey
from webapp.api import limits


@pytest.fixture(autouse=True)
def one_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    """No minute ends within a test."""
    monkeypatch.setattr(limits.time, "time", lambda: 6_000_000_045.5)


@pytest.fixture
def key(cast: Cast, settings: Settings) -> ApiKey:
    settings.API_REQUESTS_PER_MINUTE = 3
    keys.create(user=cast.bob, name="script")
    return ApiKey.objects.get()


def test_each_answer_says_what_is_left(key: ApiKey) -> None:
    first, second = limits.count(key), limits.count(key)
    assert first["x-ratelimit-limit-requests"] == "3"
    assert first["x-ratelimit-reset-requests"] == "14.500s"
    assert [told["x-ratelimit-remaining-requests"] for told in (first, second)] == ["2", "1"]


def test_past_the_limit_the_client_is_told_when(key: ApiKey) -> None:
    for _ in range(3):
        limits.count(key)
    with pytest.raises(limits.TooManyRequests) as caught:
        limits.count(key)
    assert (caught.value.status, caught.value.retry, caught.value.retry_after) == (429, True, 14.5)
    assert caught.value.headers["x-ratelimit-remaining-requests"] == "0"


def test_the_next_minute_begins_anew(key: ApiKey, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(3):
        limits.count(key)
    monkeypatch.setattr(limits.time, "time", lambda: 6_000_000_060.0)
    assert limits.count(key)["x-ratelimit-remaining-requests"] == "2"


def test_another_key_has_its_own_count(key: ApiKey, cast: Cast) -> None:
    for _ in range(3):
        limits.count(key)
    keys.create(user=cast.bob, name="other")
    assert limits.count(ApiKey.objects.exclude(pk=key.pk).get())


def test_no_limit(key: ApiKey, settings: Settings) -> None:
    settings.API_REQUESTS_PER_MINUTE = 0
    assert limits.count(key) == {}


def test_many_at_once_are_all_counted(key: ApiKey, settings: Settings) -> None:
    settings.API_REQUESTS_PER_MINUTE = 100
    with ThreadPoolExecutor(8) as threads:
        left = [told["x-ratelimit-remaining-requests"] for told in threads.map(lambda _: limits.count(key), range(40))]
    assert sorted(map(int, left)) == list(range(60, 100))


@pytest.fixture
def limited(transactional_db: None) -> Iterator[LiveServer]:
    with LiveServer(API_REQUESTS_PER_MINUTE="2") as server:
        yield server


def test_over_the_wire(limited: LiveServer, people: Cast) -> None:
    """Redis is away here: the limit holds all the same."""
    key = keys.create(user=people.bob, name="script")
    with openai.OpenAI(api_key=key, base_url=f"{limited.address}/v1", max_retries=0) as client:
        answers = [httpx.get(f"{limited.address}/v1/nothing", headers={"Authorization": f"Bearer {key}"})]
        answers += [client.models.with_raw_response.list().http_response for _ in range(2)]  # type: ignore[misc]
        assert [one.headers.get("x-ratelimit-remaining-requests") for one in answers] in (
            [None, "1", "0"],
            [None, "1", "1"],
        )
        with pytest.raises(openai.RateLimitError) as caught:
            for _ in range(3):
                client.models.list()
    headers = caught.value.response.headers
    assert 0 < int(headers["retry-after"]) <= 60
    assert (headers["x-should-retry"], headers["x-ratelimit-limit-requests"]) == ("true", "2")
    assert caught.value.code == "rate_limit_exceeded"
