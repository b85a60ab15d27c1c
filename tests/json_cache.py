"""The cache of the tests: this process's own memory, and as strict as the real one, whose values are JSON."""

from typing import Any

from django.core.cache.backends.locmem import LocMemCache

from webapp.common.cache import JsonSerializer


class JsonLocMemCache(LocMemCache):
    """What comes back is what JSON makes of it, and what is not JSON cannot go in."""

    def set(self, key: Any, value: Any, *args: Any, **kwargs: Any) -> None:
        json = JsonSerializer()
        super().set(key, json.loads(json.dumps(value).encode()), *args, **kwargs)
