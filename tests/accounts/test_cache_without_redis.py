"""A Redis that is away must not keep anybody from logging in, and limits must go on."""

import time
from pathlib import Path
from typing import Any

import pytest
from django.core.cache import cache, caches
from django.test import Client

from tests.cast import PASSWORD, Cast
from webapp.common.cache import FallbackCache


@pytest.fixture
def away(settings: Any, tmp_path: Path) -> None:
    location = f"unix://{tmp_path}/nobody.sock"
    settings.CACHES = {"default": {"BACKEND": "webapp.common.cache.FallbackCache", "LOCATION": location}}
    FallbackCache.away_until = 0.0
    cache.clear()


def test_login_works_and_is_still_limited(cast: Cast, away: None) -> None:
    right = {"login": "alice@example.com", "password": PASSWORD}
    assert Client().post("/accounts/login/", right).status_code == 302
    for _ in range(10):
        Client().post("/accounts/login/", right | {"password": "wrong"})
    refused = Client().post("/accounts/login/", right)
    assert b"Too many" in refused.content


def test_every_operation_works_in_memory(away: None) -> None:
    assert cache.add("a", [1.5], 60)
    assert not cache.add("a", [2], 60)
    cache.set_many({"b": 2, "c": 3})
    assert cache.incr("b") == 3
    assert cache.get_many(["a", "b"]) == {"a": [1.5], "b": 3}
    assert cache.touch("a", 60)
    assert cache.has_key("a")
    assert cache.delete("a")
    cache.delete_many(["b", "c"])
    assert cache.get("c", "gone") == "gone"


def test_redis_is_left_alone_for_a_while(away: None) -> None:
    cache.get("x")
    assert FallbackCache.away_until > time.monotonic()
    assert caches["default"].get("x") is None
