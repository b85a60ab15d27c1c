"""Where the server is and which key opens it: from the environment, else from the file that `login` wrote."""

import getpass
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lowrank.client import Client
from lowrank.failures import ClientError, WrongUse
from lowrank.printing import say, write_json

USUAL_ADDRESS = "http://127.0.0.1:8000"


@dataclass(frozen=True)
class Login:
    """`address` without the /v1 behind it; `team` is a slug, empty for the key's own choice."""

    address: str
    key: str
    team: str = ""


def config_dir() -> Path:
    """The user's, as desktops have it."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "lowrank"


def config_file() -> Path:
    return config_dir() / "login.json"


def read_login(team: str = "") -> Login:
    """LOWRANK_URL, LOWRANK_API_KEY and LOWRANK_TEAM go before what was stored. Raises WrongUse when there is no key."""
    stored = _stored()
    given = os.environ.get("LOWRANK_URL")
    address = plain_address(given or stored.get("address") or USUAL_ADDRESS)
    key = os.environ.get("LOWRANK_API_KEY", "")
    if not key and address == stored.get("address"):  # a stored key is never sent to another server
        key = str(stored.get("key", ""))
    if not key:
        raise WrongUse(f"There is no key for {address}. Run `lowrank login`, or set LOWRANK_API_KEY.")
    return Login(address, key, team or os.environ.get("LOWRANK_TEAM", "") or str(stored.get("team", "")))


def _stored() -> dict[str, Any]:
    try:
        values = json.loads(config_file().read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise WrongUse(f"{config_file()} cannot be read: {error}. Run `lowrank login` again.") from error
    return values if isinstance(values, dict) else {}


def plain_address(text: str) -> str:
    """The server's address, whether it was given with /v1 or a slash behind it or not."""
    address = text.strip().rstrip("/").removesuffix("/v1").rstrip("/")
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise WrongUse(f"{text!r} is no address. Give one such as {USUAL_ADDRESS}.")
    return address


def login(*, address: str, key: str, team: str, as_json: bool) -> None:
    """Ask for what was not given, try it, and keep it where only this user can read it."""
    if not address:
        address = os.environ.get("LOWRANK_URL") or _ask(f"Address of the server [{USUAL_ADDRESS}]: ") or USUAL_ADDRESS
    address = plain_address(address)
    if key == "-":
        key = sys.stdin.readline()
    key = (key or os.environ.get("LOWRANK_API_KEY") or _ask_secret(f"API key, from {address}/settings/: ")).strip()
    if not key:
        raise WrongUse("No key was given. Make one on the server's settings page.")
    found = Client(Login(address, key, team)).get("/models")
    store(Login(address, key, team))
    if as_json:
        write_json({"address": address, "models": len(found["data"]), "stored": str(config_file())})
    else:
        say(f"Logged in to {address}, which offers {len(found['data'])} models. The key is in {config_file()}.")


def _ask(text: str) -> str:
    if not sys.stdin.isatty():
        return ""
    sys.stderr.write(text)
    sys.stderr.flush()
    return sys.stdin.readline().strip()


def _ask_secret(text: str) -> str:
    if not sys.stdin.isatty():
        raise WrongUse("No key was given. Pipe it in with `--key -`, or set LOWRANK_API_KEY.")
    return getpass.getpass(text, sys.stderr)


def store(made: Login) -> None:
    """Whole or not at all, and never readable by others, not even for a moment."""
    folder = config_dir()
    part = folder / f".login-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        part.unlink(missing_ok=True)
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as out:
            json.dump({"address": made.address, "key": made.key, "team": made.team}, out)
        part.replace(config_file())
    except OSError as error:
        raise ClientError(
            f"The login could not be stored in {folder}: {error}. Set LOWRANK_API_KEY instead."
        ) from error
