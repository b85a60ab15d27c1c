"""Ends a request with too large a body before it is read, or once it shows: Django alone would spool it all."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.auth import SESSION_KEY
from django.http.cookie import parse_cookie
from django.urls import Resolver404, resolve

from webapp.common.http import release_connections

Scope = dict[str, Any]
Message = Mapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

FORM_OVERHEAD = 512 * 1024  # names and borders of a form's fields
TOO_LARGE = (413, b"The upload is larger than this server takes.\n")
NOT_SIGNED_IN = (403, b"Log in first, then upload the file again.\n")


@dataclass(frozen=True)
class Limits:
    """Bytes of a form, and of a file on the pages that take one from whoever is logged in."""

    form: int
    upload: int
    upload_pages: tuple[str, ...]


def limit_body(application: Application, limits: Limits) -> Application:
    """The application, with bodies within `limits`; larger ones are answered with 413, or with 403 to strangers."""

    async def limited(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await application(scope, receive, send)
            return
        limit, refusal = limits.form + FORM_OVERHEAD, TOO_LARGE
        if scope["method"] in ("POST", "PATCH") and _page(scope) in limits.upload_pages:
            if await _is_signed_in(scope):
                limit = limits.upload + FORM_OVERHEAD
            else:
                refusal = NOT_SIGNED_IN
        if _claimed_size(scope) > limit:
            await _refuse(send, *refusal)
            return
        body = _Counted(receive, limit)
        await application(scope, body, send)
        if body.too_large:
            await _refuse(send, *refusal)

    return limited


class _Counted:
    """Counts what is received. Past the limit the sender seems to be gone, and Django gives the request up."""

    def __init__(self, receive: Receive, limit: int) -> None:
        self._receive = receive
        self._left = limit
        self.too_large = False

    async def __call__(self) -> Message:
        message = await self._receive()
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            self.too_large = True
            return {"type": "http.disconnect"}
        return message


def _page(scope: Scope) -> str | None:
    """The name of the address that is asked."""
    try:
        return resolve(scope["path"]).url_name
    except Resolver404:
        return None


async def _is_signed_in(scope: Scope) -> bool:
    """Whether the session that the request names is somebody's. Made-up ones would fill the disk all the same."""
    key = parse_cookie(_header(scope, b"cookie").decode("latin-1")).get(settings.SESSION_COOKIE_NAME)
    if not key:
        return False
    return await sync_to_async(_is_somebodys, thread_sensitive=False)(key)


def _is_somebodys(session_key: str) -> bool:
    try:
        return SESSION_KEY in import_module(settings.SESSION_ENGINE).SessionStore(session_key)
    finally:
        release_connections()


def _claimed_size(scope: Scope) -> int:
    size = _header(scope, b"content-length")
    return int(size) if size.isdigit() else 0


def _header(scope: Scope, wanted: bytes) -> bytes:
    return b"; ".join(value for name, value in scope["headers"] if name.lower() == wanted)


async def _refuse(send: Send, status: int, text: bytes) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text})
