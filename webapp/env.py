"""Typed readers of the environment. A wrong value stops the start with a sentence that names the variable."""

import hashlib
import os
import secrets
import socket
from contextlib import suppress
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import environ
from django.core.exceptions import ImproperlyConfigured

TRUE = ("1", "true", "yes", "on")
FALSE = ("0", "false", "no", "off")
LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")
EVERY_INTERFACE = ("0.0.0.0", "::")  # noqa: S104 - names of what a person may ask for
SOCKET_PATH_BYTES = 107  # sun_path of Linux holds 108 with its closing NUL


def make_folders(data_dir: Path, *inside: Path) -> None:
    """DATA_DIR and folders in it. Whoever makes it first, no neighbour reads the database."""
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in inside:
            folder.mkdir(exist_ok=True)
    except OSError as error:
        problem = f"DATA_DIR is {data_dir}, and no folder can be made there: {error.strerror}."
        raise ImproperlyConfigured(f"{problem} Choose another.") from error


def secret_key(data_dir: Path) -> str:
    """SECRET_KEY, or the one kept in DATA_DIR; the first start makes it, readable by its owner alone."""
    if given := text("SECRET_KEY"):
        return given
    file = data_dir / "secret_key"
    if not file.exists():
        aside = data_dir / f".secret_key-{secrets.token_hex(8)}"
        with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
            out.write(secrets.token_urlsafe(50))
        # A link appears whole or fails: of several processes starting at once one makes the key, the others read it.
        with suppress(FileExistsError):
            os.link(aside, file)
        aside.unlink()
    return file.read_text().strip()


def text(name: str, default: str = "") -> str:
    """A variable as it is. An empty one counts as not set, here and below: compose files pass those along."""
    return os.environ.get(name, "").strip() or default


def words(name: str) -> list[str]:
    """A variable that lists things, with commas between them."""
    return [one.strip() for one in text(name).split(",") if one.strip()]


def choice(name: str, default: str, allowed: tuple[str, ...]) -> str:
    """A variable that must be one of a few words."""
    value = text(name, default)
    if value not in allowed:
        raise ImproperlyConfigured(f"{name} is {value!r}; use one of {', '.join(allowed)}.")
    return value


def flag(name: str, *, default: bool) -> bool:
    """A variable that is true or false."""
    value = text(name, str(default)).lower()
    if value not in TRUE + FALSE:
        raise ImproperlyConfigured(f"{name} is {value!r}; use true or false.")
    return value in TRUE


def number(name: str, *, default: float, lowest: float = 0, highest: float = 1e9) -> float:
    """A variable that is a number between two others."""
    given = text(name, str(default))
    try:
        value = float(given)
    except ValueError:
        raise ImproperlyConfigured(f"{name} is {given!r}; use a number.") from None
    if not lowest <= value <= highest:
        raise ImproperlyConfigured(f"{name} is {given}; use a number from {lowest:g} to {highest:g}.")
    return value


def whole(name: str, *, default: int, lowest: int = 0, highest: int = 10**9) -> int:
    """A variable that is a whole number between two others."""
    value = number(name, default=default, lowest=lowest, highest=highest)
    if not value.is_integer():
        raise ImproperlyConfigured(f"{name} is {value:g}; use a whole number.")
    return int(value)


def database(data_dir: Path, redis_url: str) -> dict[str, object]:
    """DATABASE_URL, or SQLite in DATA_DIR; its write lock is taken at BEGIN, so that writers wait and never fail."""
    found: dict[str, object] = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(data_dir / "db.sqlite3")}
    if given := text("DATABASE_URL"):
        found = dict(environ.Env.db_url_config(given))
    if found["ENGINE"] == "django.db.backends.sqlite3":
        if not is_local(redis_url):
            raise ImproperlyConfigured(
                f"REDIS_URL names the host {urlsplit(redis_url).hostname}, so more than one machine may work here, and "
                "SQLite serves a single one. Set DATABASE_URL to a PostgreSQL, or REDIS_URL to a server on localhost."
            )
        # Opening the file costs more than most queries; streams close theirs. Not for ever: the file may be exchanged.
        found["CONN_MAX_AGE"] = 60
        found["OPTIONS"] = {
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA journal_size_limit=67108864",
        }
    elif found["ENGINE"] != "django.db.backends.postgresql":
        raise ImproperlyConfigured("DATABASE_URL must name SQLite (sqlite:///path) or PostgreSQL (postgres://…).")
    return found


def email() -> dict[str, object]:
    """EMAIL_URL as Django's settings; without one, messages appear in the log."""
    found: dict[str, object] = environ.Env.email_url_config(text("EMAIL_URL", "consolemail://"))
    return found


def is_local(redis_url: str) -> bool:
    """Whether a REDIS_URL stays on this machine."""
    parts = urlsplit(redis_url)
    return parts.scheme == "unix" or parts.hostname in LOCAL_NAMES


def embedded_socket(data_dir: Path) -> Path:
    """Where the embedded Valkey listens: in DATA_DIR, or below /tmp when that path is too long for a socket.

    The same for every process of one DATA_DIR, whatever else is in its environment.
    """
    path = data_dir / "valkey" / "v.sock"
    if len(os.fsencode(path)) <= SOCKET_PATH_BYTES:
        return path
    name = hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:16]
    # The folder is made 0700 and refused when it belongs to somebody else.
    return Path("/tmp") / f"lowrank-{os.getuid()}-{name}" / "v.sock"  # noqa: S108


def broker_urls(url: str) -> tuple[str, str]:
    """REDIS_URL in the two dialects its readers speak: (Celery, redis-py and Django's cache).

    redis:// and rediss:// are the same in both; a unix socket is redis+socket:// to the one and unix:// to the other.
    """
    parts = urlsplit(url)
    if parts.scheme in ("redis", "rediss"):
        return url, url
    if parts.scheme == "unix":
        number_of = parse_qs(parts.query).get("db", ["0"])[0]
        return f"redis+socket://{parts.netloc}{parts.path}?virtual_host={number_of}", url
    raise ImproperlyConfigured(f"REDIS_URL starts with {parts.scheme!r}; use redis://, rediss:// or unix:///path.")


def in_url(host: str) -> str:
    """A host as an address holds it: IPv6 in brackets, and localhost for `every interface`."""
    if host in EVERY_INTERFACE:
        return "localhost"
    return f"[{host}]" if ":" in host else host


def allowed_hosts(host: str, base_url: str) -> list[str]:
    """Names the site answers to: BASE_URL's, HOST's, this machine's when every interface is open, and localhost.

    localhost is always among them, for the health checks of the machine itself.
    """
    names = [*words("ALLOWED_HOSTS"), in_url(urlsplit(base_url).hostname or "")]
    if host in EVERY_INTERFACE:
        names += [socket.gethostname(), *own_addresses(with_ipv6=host == "::")]
    else:
        names.append(in_url(host))
    return list(dict.fromkeys([*(name for name in names if name), "localhost", "127.0.0.1", "[::1]"]))


def own_addresses(*, with_ipv6: bool) -> list[str]:
    """The addresses of this machine that others on its network reach it by."""
    found = []
    families = [(socket.AF_INET, "192.0.2.1")] + with_ipv6 * [(socket.AF_INET6, "2001:db8::1")]
    for family, anywhere in families:
        # Connecting a datagram socket sends nothing; it only chooses the interface.
        with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as chooser:
            chooser.connect((anywhere, 9))
            found.append(in_url(chooser.getsockname()[0]))
    return found
