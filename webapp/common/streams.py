"""Live streams on Redis, the only place that talks to it. Nothing here is needed for correctness: Redis may be lost."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from functools import cache
from typing import Any, cast

import redis
import redis.asyncio
from django.conf import settings

logger = logging.getLogger(__name__)

Entry = tuple[str, dict[str, str]]


@cache
def _client() -> redis.Redis:
    return redis.Redis.from_url(settings.CACHE_URL, decode_responses=True, socket_timeout=2)


def append(stream: str, entry: dict[str, str], *, keep: int = 20_000, seconds: int = 3600) -> bool:
    """Add an entry; readers see it at once. About `keep` entries stay, until `seconds` after the last.

    False when Redis is away: the caller has the truth in the database and loses only liveliness.
    """
    try:
        with _client().pipeline(transaction=False) as pipe:
            pipe.xadd(stream, cast(Any, entry), maxlen=keep, approximate=True)
            pipe.expire(stream, seconds)
            pipe.execute()
    except redis.RedisError as error:
        logger.warning("stream %s: %s", stream, error)
        return False
    return True


def ping() -> bool:
    """Whether Redis answers."""
    try:
        return bool(_client().ping())
    except redis.RedisError:
        return False


async def follow(stream: str, *, after: str = "0", idle: float = 1.0) -> AsyncGenerator[Entry | None, None]:
    """Entries after the id `after`, as they come; None whenever `idle` seconds brought nothing, or Redis is away.

    The None lets the caller look at the database, send a keep-alive, or notice that its reader has gone.
    """
    # No socket timeout: redis-py's default of 5 s would cut a blocking read.
    client = redis.asyncio.Redis.from_url(settings.CACHE_URL, decode_responses=True, socket_timeout=None)
    try:
        while True:
            try:
                found: Any = await client.xread({stream: after}, block=int(idle * 1000), count=200)
            except redis.RedisError as error:
                logger.warning("stream %s: %s", stream, error)
                await asyncio.sleep(idle)
                found = None
            if not found:
                yield None
                continue
            entries: list[Entry] = next(iter(found.values()))[0] if isinstance(found, dict) else found[0][1]
            for entry in entries:
                after = entry[0]  # where the next read starts
                yield entry
    finally:
        await client.aclose()
