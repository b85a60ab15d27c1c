"""Fixtures of the accounts tests."""

from collections.abc import Iterator

import pytest
from django.core.cache import cache


@pytest.fixture(autouse=True)
def fresh_rate_limits() -> Iterator[None]:
    """Limits are counted in the cache; one test's failed logins must not lock the next one out."""
    cache.clear()
    yield
    cache.clear()
