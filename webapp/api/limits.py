"""How many requests a key may make in a minute, counted in the cache."""

import functools
import time

from django.conf import settings
from django.core.cache import caches
from django.core.cache.backends.base import BaseCache

from webapp.accounts.models import ApiKey
from webapp.api.wire import ApiError

WINDOW = 60


def count(key: ApiKey) -> dict[str, str]:
    """Count a request of the key; the headers that tell the client where it stands. Raises ApiError 429 past the limit.

    Without Redis each web process counts by itself.
    """
    limit: int = settings.API_REQUESTS_PER_MINUTE
    if not limit:
        return {}
    now = time.time()
    left = WINDOW - now % WINDOW
    made = _add_one(f"api-rate:{key.pk.hex}:{int(now // WINDOW)}")
    headers = {
        "x-ratelimit-limit-requests": str(limit),
        "x-ratelimit-remaining-requests": str(max(0, limit - made)),
        "x-ratelimit-reset-requests": f"{left:.3f}s",
    }
    if made > limit:
        text = f"This key may make {limit} requests a minute. Try again in {left:.0f} s."
        raise TooManyRequests(text, left, headers)
    return headers


class TooManyRequests(ApiError):
    """429, which tells the limits as well."""

    def __init__(self, text: str, seconds: float, headers: dict[str, str]) -> None:
        super().__init__(429, text, code="rate_limit_exceeded", retry=True, retry_after=seconds)
        self.headers = headers


@functools.cache
def _counts() -> BaseCache:
    """One for the process. Django's own is one a thread, and here each request has a thread: a connection each."""
    return caches.create_connection("default")


def _add_one(name: str) -> int:
    try:
        return int(_counts().incr(name))
    except ValueError:  # not counted yet
        if _counts().add(name, 1, timeout=2 * WINDOW):
            return 1
    return int(_counts().incr(name))  # another request was the first
