"""How many requests a key may make in a minute, counted in Redis."""

import time

from django.conf import settings
from django.core.cache.backends.locmem import LocMemCache

from webapp.accounts.models import ApiKey
from webapp.api.wire import ApiError
from webapp.common import streams

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


# For the time that Redis is away
_here = LocMemCache("api-rates", {"OPTIONS": {"MAX_ENTRIES": 10_000}})


def _add_one(name: str) -> int:
    made = streams.tally(name, seconds=2 * WINDOW)
    if made is None:
        _here.add(name, 0, timeout=2 * WINDOW)
        made = int(_here.incr(name))
    return made
