"""Live streams and counts on Redis, the only place that talks to it. Nothing is needed here: Redis may be lost."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator
from functools import cache
from typing import Any, cast
from weakref import WeakKeyDictionary

import redis
import redis.asyncio
from django.conf import settings

from webapp.common.cache import AWAY_SECONDS

logger = logging.getLogger(__name__)

ANSWER_SECONDS = 1.0  # a server that takes longer for a command counts as away
STUCK_SECONDS = 5.0  # the same for a read, beyond the time that it waits for entries anyway

MOST_IDLE = 32  # readers that stay connected for the next stream

Entry = tuple[str, dict[str, str]]
Readers = dict[float, list[redis.asyncio.Redis]]  # by how long they wait
_idle_readers: WeakKeyDictionary[asyncio.AbstractEventLoop, Readers] = WeakKeyDictionary()


class _Client(redis.Redis):
    """Commands of this process. After a failure the server is left alone for a while: each would wait for it anew."""

    away_until = 0.0


@cache
def _client() -> _Client:
    # Without redis-py's retries, which wait for seconds. A connection that broke while it was idle is made anew anyway.
    limits: dict[str, Any] = {"socket_timeout": ANSWER_SECONDS, "socket_connect_timeout": ANSWER_SECONDS, "retry": None}
    return cast(_Client, _Client.from_url(settings.CACHE_URL, decode_responses=True, **limits))


def append(stream: str, entry: dict[str, str], *, keep: int = 20_000, seconds: int = 3600) -> bool:
    """Add an entry; readers see it at once. About `keep` entries stay, until `seconds` after the last.

    False when Redis is away: the caller has the truth in the database and loses only liveliness.
    """
    client = _client()
    if time.monotonic() < client.away_until:
        return False
    try:
        with client.pipeline(transaction=False) as pipe:
            pipe.xadd(stream, cast(Any, entry), maxlen=keep, approximate=True)
            pipe.expire(stream, seconds)
            pipe.execute()
    except redis.RedisError as error:
        client.away_until = time.monotonic() + AWAY_SECONDS
        logger.warning("stream %s: Redis is away, nothing is sent for %g s: %s", stream, AWAY_SECONDS, error)
        return False
    return True


def tally(name: str, *, seconds: int) -> int | None:
    """Count one more under this name, which is forgotten after `seconds`; None when Redis is away."""
    client = _client()
    if time.monotonic() < client.away_until:
        return None
    try:
        made = int(cast(Any, client.incr(name)))
        if made == 1:
            client.expire(name, seconds)
    except redis.RedisError as error:
        client.away_until = time.monotonic() + AWAY_SECONDS
        logger.warning("%s: Redis is away for %g s: %s", name, AWAY_SECONDS, error)
        return None
    return made


def last_event(stream: str) -> str:
    """The `event` of the newest entry; empty when there is none, or Redis is away."""
    try:
        found: Any = _client().xrevrange(stream, count=1)
    except redis.RedisError:
        return ""
    return str(found[0][1].get("event", "")) if found else ""


def newest(stream: str) -> str:
    """The id of the newest entry, where a listener begins; "0" when there is none, or Redis is away."""
    try:
        found: Any = _client().xrevrange(stream, count=1)
    except redis.RedisError:
        return "0"
    return str(found[0][0]) if found else "0"


def wait_for(stream: str, *, after: str, seconds: float) -> list[Entry]:
    """Entries after the id `after`, waiting for the first. Empty when none came.

    For threads that do nothing else; when Redis is away the time is waited out.
    """
    client = _waiting_client(seconds)
    try:
        found: Any = client.xread({stream: after}, block=int(seconds * 1000), count=200)
    except redis.RedisError:
        time.sleep(min(seconds, AWAY_SECONDS))
        return []
    return list(found[0][1] if isinstance(found, list) else next(iter(found.values()))[0]) if found else []


@cache
def _waiting_client(seconds: float) -> redis.Redis:
    limits: dict[str, Any] = {"socket_timeout": seconds + STUCK_SECONDS, "socket_connect_timeout": ANSWER_SECONDS}
    return redis.Redis.from_url(settings.CACHE_URL, decode_responses=True, retry=None, **limits)


def ping() -> bool:
    """Whether Redis answers."""
    try:
        return bool(_client().ping())
    except redis.RedisError:
        return False


async def follow(stream: str, *, after: str = "0", idle: float = 1.0) -> AsyncGenerator[Entry | None, None]:
    """Entries after the id `after`, as they come; None whenever `idle` seconds brought nothing, or Redis is away.

    The None lets the caller look at the database, send a keep-alive, or notice that its reader has gone. It comes even
    when the server is there and does not answer.
    """
    readers = _idle_readers.setdefault(asyncio.get_running_loop(), {}).setdefault(idle, [])
    client = readers.pop() if readers else _new_reader(idle)
    try:
        while True:
            try:
                found = await _read(client, {stream: after}, int(idle * 1000))
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
        # Connecting takes a millisecond or two, which a short answer would wait for. One that was cut off while it read
        # connects anew by itself.
        if len(readers) < MOST_IDLE:
            readers.append(client)
        else:
            await client.aclose()


def _new_reader(idle: float) -> redis.asyncio.Redis:
    # Longer than the read itself takes: redis-py's default of 5 s would cut it. Without retries: the loop is one.
    limits: dict[str, Any] = {
        "socket_timeout": idle + STUCK_SECONDS,
        "socket_connect_timeout": ANSWER_SECONDS,
        "retry": None,
    }
    return redis.asyncio.Redis.from_url(settings.CACHE_URL, decode_responses=True, **limits)


async def _read(client: redis.asyncio.Redis, after: dict[str, str], milliseconds: int) -> Any:
    """Read in a task of its own: redis-py swallows a cancellation now and then, and a reader must end all the same."""
    reading = asyncio.ensure_future(client.xread(cast(Any, after), block=milliseconds, count=200))
    reading.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody else may ask any more
    try:
        await asyncio.wait([reading])
    finally:
        reading.cancel()
    return reading.result()
