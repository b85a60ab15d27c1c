"""Typed readers of the environment. A wrong value stops the start with a sentence that names the variable."""

import os
import secrets
from pathlib import Path
from urllib.parse import urlsplit

import environ
from django.core.exceptions import ImproperlyConfigured

env = environ.Env()


def secret_key(data_dir: Path) -> str:
    """SECRET_KEY, or the one kept in DATA_DIR; the first start makes it, readable by its owner alone."""
    if given := os.environ.get("SECRET_KEY"):
        return given
    file = data_dir / "secret_key"
    data_dir.mkdir(parents=True, exist_ok=True)
    try:
        # O_EXCL: of several processes starting at once exactly one writes the key, the others read it.
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return file.read_text().strip()
    with os.fdopen(handle, "w") as out:
        out.write(secrets.token_urlsafe(50))
    return file.read_text().strip()


def choice(name: str, default: str, allowed: tuple[str, ...]) -> str:
    """A variable that must be one of a few words."""
    value: str = env.str(name, default=default)
    if value not in allowed:
        raise ImproperlyConfigured(f"{name} is {value!r}; use one of {', '.join(allowed)}.")
    return value


def database(data_dir: Path) -> dict[str, object]:
    """DATABASE_URL, or SQLite in DATA_DIR. SQLite takes its write lock at BEGIN, so that writers wait and never fail."""
    found: dict[str, object] = dict(env.db_url("DATABASE_URL", default=f"sqlite:///{data_dir / 'db.sqlite3'}"))
    if found["ENGINE"] == "django.db.backends.sqlite3":
        found["OPTIONS"] = {
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA journal_size_limit=67108864",
        }
    elif found["ENGINE"] != "django.db.backends.postgresql":
        raise ImproperlyConfigured("DATABASE_URL must name SQLite (sqlite:///path) or PostgreSQL (postgres://…).")
    return found


def broker_urls(url: str) -> tuple[str, str]:
    """REDIS_URL in the two dialects its readers speak: (Celery, redis-py and Django's cache).

    redis:// and rediss:// are the same in both; a unix socket is redis+socket:// to the one and unix:// to the other.
    """
    parts = urlsplit(url)
    if parts.scheme in ("redis", "rediss"):
        return url, url
    if parts.scheme == "unix":
        return f"redis+socket://{parts.path}", url
    raise ImproperlyConfigured(f"REDIS_URL starts with {parts.scheme!r}; use redis://, rediss:// or unix:///path.")
