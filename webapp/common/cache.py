"""The cache: Redis, or this process's own memory while Redis is away. Values are JSON."""

import json
import logging
import time
from typing import Any, ClassVar

import redis
from django.core.cache.backends.locmem import LocMemCache
from django.core.cache.backends.redis import RedisCache

logger = logging.getLogger(__name__)

AWAY_SECONDS = 10.0  # after a failure Redis is left alone this long, so that not every request waits for it


class JsonSerializer:
    """Django's own serializer is pickle: who can write to Redis could then run code in the web process."""

    def dumps(self, value: Any) -> str:
        return json.dumps(value)

    def loads(self, data: bytes) -> Any:
        return json.loads(data)


class FallbackCache(RedisCache):
    """Django's RedisCache raises when the server is away, and allauth's rate limits would turn a login into a 500.

    Here each operation that fails is done in the memory of this process instead. So limits still hold in each
    process by itself, and what is cached is computed anew. Nothing may lie in a cache that must not be lost.
    """

    away_until: ClassVar[float] = 0.0  # of the whole process: Django makes an instance for each thread

    def __init__(self, server: str, params: dict[str, Any]) -> None:
        options = {
            "serializer": JsonSerializer,
            # A server that does not answer must not hold a login up; redis-py would wait 5 s, four times over.
            "socket_timeout": 1.0,
            "socket_connect_timeout": 1.0,
            "retry": None,
        }
        super().__init__(server, params | {"OPTIONS": options | params.get("OPTIONS", {})})
        self._memory = LocMemCache("redis-is-away", params)

    def _do(self, operation: str, *args: Any, **kwargs: Any) -> Any:
        if time.monotonic() >= FallbackCache.away_until:
            try:
                return getattr(super(), operation)(*args, **kwargs)
            except redis.RedisError as error:
                FallbackCache.away_until = time.monotonic() + AWAY_SECONDS
                logger.warning("cache: Redis is away, using this process's memory: %s", error)
        return getattr(self._memory, operation)(*args, **kwargs)

    def add(self, *args: Any, **kwargs: Any) -> Any:
        return self._do("add", *args, **kwargs)

    def get(self, *args: Any, **kwargs: Any) -> Any:
        return self._do("get", *args, **kwargs)

    def set(self, *args: Any, **kwargs: Any) -> Any:
        return self._do("set", *args, **kwargs)

    def touch(self, *args: Any, **kwargs: Any) -> Any:
        return self._do("touch", *args, **kwargs)

    def delete(self, *args: Any, **kwargs: Any) -> Any:
        return self._do("delete", *args, **kwargs)

    def get_many(self, *args: Any, **kwargs: Any) -> Any:
        return self._do("get_many", *args, **kwargs)

    def has_key(self, *args: Any, **kwargs: Any) -> Any:
        return self._do("has_key", *args, **kwargs)

    def incr(self, *args: Any, **kwargs: Any) -> Any:
        return self._do("incr", *args, **kwargs)

    def set_many(self, *args: Any, **kwargs: Any) -> Any:
        return self._do("set_many", *args, **kwargs)

    def delete_many(self, *args: Any, **kwargs: Any) -> Any:
        return self._do("delete_many", *args, **kwargs)

    def clear(self) -> Any:
        return self._do("clear")
