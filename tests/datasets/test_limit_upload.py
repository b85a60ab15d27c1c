"""A body that is too large ends before it lies on disk, whether it tells its size or not; strangers upload nothing."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.test import Client
from django.urls import reverse

from tests.cast import Cast
from tests.source import ROOT
from webapp.common.body_limit import FORM_OVERHEAD, Limits, limit_body

pytestmark = pytest.mark.django_db(transaction=True)
Message = Mapping[str, Any]

PIECE = 1024 * 1024
FORM = 2 * PIECE
UPLOAD = 8 * PIECE
PAGES = [("dataset_new", []), ("dataset_version_new", [uuid4()])]


async def post(
    pieces: int, *, path: str = "/chat/", session: str = "", says_size: bool = True, method: str = "POST"
) -> tuple[int, int]:
    """Send a body of so many pieces; returns the status and how many were taken."""
    taken, status = 0, 0
    headers = [(b"host", b"localhost"), (b"cookie", f"theme=dark; {settings.SESSION_COOKIE_NAME}={session}".encode())]
    headers += [(b"content-length", str(pieces * PIECE).encode())] * says_size
    scope: dict[str, Any] = {"type": "http", "method": method, "path": path, "headers": headers}
    scope |= {"query_string": b"", "http_version": "1.1", "client": ("127.0.0.1", 1), "server": ("localhost", 80)}

    async def receive() -> Message:
        nonlocal taken
        taken += 1
        if taken > pieces:
            await asyncio.sleep(60)  # a client that waits for its answer
        return {"type": "http.request", "body": b"x" * PIECE, "more_body": taken < pieces}

    async def send(message: Message) -> None:
        nonlocal status
        status = message.get("status", status)

    limits = Limits(form=FORM - FORM_OVERHEAD, upload=UPLOAD - FORM_OVERHEAD, upload_pages=(*dict(PAGES), "upload"))
    await limit_body(get_asgi_application(), limits)(scope, receive, send)
    return status, min(taken, pieces)


@pytest.fixture
def session(cast: Cast) -> str:
    return cast.client("bob").cookies[settings.SESSION_COOKIE_NAME].value


@pytest.mark.parametrize(("name", "args"), PAGES)
async def test_claimed_size_is_refused_unread(session: str, name: str, args: list[Any]) -> None:
    assert await post(9, path=reverse(name, args=args), session=session) == (413, 0)


async def test_body_without_a_size_is_refused_at_the_limit(session: str) -> None:
    assert await post(50, path=reverse("dataset_new"), session=session, says_size=False) == (413, 9)


@pytest.mark.parametrize(("name", "args"), PAGES)
async def test_body_within_the_limit_reaches_the_page(session: str, name: str, args: list[Any]) -> None:
    # Django has read it and misses the CSRF token.
    assert await post(8, path=reverse(name, args=args), session=session) == (403, 8)


@pytest.mark.parametrize("path", ["/chat/", "/accounts/login/", "/healthz", "/no/such/page/"])
async def test_other_pages_take_a_form_at_most(session: str, path: str) -> None:
    assert await post(3, path=path, session=session) == (413, 0)
    assert await post(9, path=path, session=session, says_size=False) == (413, 3)
    assert (await post(2, path=path, session=session))[1] == 2


async def test_parts_have_the_limit_of_files(session: str) -> None:
    place = reverse("upload", args=[uuid4()])
    assert await post(9, path=place, session=session, method="PATCH") == (413, 0)
    assert await post(50, path=place, session=session, method="PATCH", says_size=False) == (413, 9)
    assert await post(8, path=place, session=session, method="PATCH") == (403, 8)
    assert await post(8, path=place, method="PATCH") == (403, 0)


async def test_reading_the_page_takes_no_file(session: str) -> None:
    assert await post(3, path=reverse("dataset_new"), session=session, method="GET") == (413, 0)


@pytest.mark.parametrize("made_up", ["", "x", "0" * 32, "\x00", "é"])
async def test_strangers_upload_nothing(made_up: str) -> None:
    assert await post(8, path=reverse("dataset_new"), session=made_up) == (403, 0)
    assert await post(8, path=reverse("dataset_new"), session=made_up, says_size=False) == (403, 3)


@pytest.fixture
def nobodys_session(client: Client) -> str:
    session = client.session
    session["theme"] = "dark"
    session.save()
    return str(session.session_key)


async def test_a_session_that_is_nobodys_uploads_nothing(nobodys_session: str) -> None:
    assert await post(8, path=reverse("dataset_new"), session=nobodys_session) == (403, 0)


SPOOLED = """
import asyncio, os
from pathlib import Path
from webapp.asgi import application

async def main():
    asked = 0
    async def receive():
        nonlocal asked
        asked += 1
        if asked == 3:
            await asyncio.sleep(60)
        if asked == 2:
            handles = [os.path.realpath(one) for one in Path("/proc/self/fd").iterdir()]
            print(*[one for one in handles if "(deleted)" in one])
        return {"type": "http.request", "body": b"x" * 2_900_000 if asked == 1 else b"", "more_body": asked == 1}
    async def send(message):
        pass
    scope = {"type": "http", "method": "GET", "path": "/healthz", "headers": [(b"host", b"localhost")]}
    scope |= {"query_string": b"", "http_version": "1.1", "client": ("127.0.0.1", 1), "server": ("localhost", 80)}
    await application(scope, receive, send)

asyncio.run(main())
"""


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="looks at its own open files")
def test_bodies_in_flight_lie_in_the_data_folder(tmp_path: Path) -> None:
    env = {"PATH": os.environ["PATH"], "DATA_DIR": str(tmp_path), "DJANGO_SETTINGS_MODULE": "webapp.settings"}
    command = [sys.executable, "-c", SPOOLED]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    places = {Path(one).parent for one in done.stdout.split() if one.startswith("/")}
    assert places == {tmp_path / "uploads"}
