"""Ends a request with too large a body before it is read, or once it shows: Django alone would spool it all."""

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any
from uuid import uuid4

from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.auth import SESSION_KEY
from django.http.cookie import parse_cookie
from django.urls import Resolver404, resolve
from django.utils.module_loading import import_string

from webapp.common.request_threads import release_connections

Scope = dict[str, Any]
Message = Mapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

FORM_OVERHEAD = 512 * 1024  # names and borders of a form's fields
TOO_LARGE = (413, b"The upload is larger than this server takes.\n")
WRONG_KEY = (401, b"Send a good API key as `Authorization: Bearer lr_...` with the file.\n")
NOT_SIGNED_IN = (403, b"Log in first, then upload the file again.\n")


API = "/v1/"
API_CODES = {413: "body_too_large", 401: "invalid_api_key"}


@dataclass(frozen=True)
class Limits:
    """Bytes of a form, and of a file on the pages that take one from whoever is logged in or has an API key."""

    form: int
    upload: int
    upload_pages: tuple[str, ...]
    user_of: str = ""  # the function, by its dotted name, that tells whose API key it is given


def limit_body(application: Application, limits: Limits) -> Application:
    """The application, with bodies within `limits`; larger ones are answered with 413, or with 403 to strangers."""

    async def limited(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await application(scope, receive, send)
            return
        limit, refusal = limits.form + FORM_OVERHEAD, TOO_LARGE
        if scope["method"] in ("POST", "PATCH") and _page(scope) in limits.upload_pages:
            if await _is_somebody(scope, limits):
                limit = limits.upload + FORM_OVERHEAD
            else:
                refusal = WRONG_KEY if scope["path"].startswith(API) else NOT_SIGNED_IN
        if _claimed_size(scope) > limit:
            await _refuse(scope, send, *refusal)
            return
        body = _Counted(receive, limit)
        await application(scope, body, send)
        if body.too_large:
            await _refuse(scope, send, *refusal)

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
    path = scope["path"]
    try:
        return resolve(path.rstrip("/") if path.startswith(API) else path).url_name
    except Resolver404:
        return None


async def _is_somebody(scope: Scope, limits: Limits) -> bool:
    """Whether the session or key of the request is somebody's. Made-up ones would fill the disk all the same."""
    if scope["path"].startswith(API):
        scheme, _, api_key = _header(scope, b"authorization").decode("latin-1").partition(" ")
        return scheme.lower() == "bearer" and await sync_to_async(_knows, thread_sensitive=False)(limits, api_key)
    key = parse_cookie(_header(scope, b"cookie").decode("latin-1")).get(settings.SESSION_COOKIE_NAME)
    if not key:
        return False
    return await sync_to_async(_is_somebodys, thread_sensitive=False)(key)


def _is_somebodys(session_key: str) -> bool:
    try:
        return SESSION_KEY in import_module(settings.SESSION_ENGINE).SessionStore(session_key)
    finally:
        release_connections()


def _knows(limits: Limits, api_key: str) -> bool:
    try:
        return bool(import_string(limits.user_of)(api_key.strip()))
    finally:
        release_connections()


def _claimed_size(scope: Scope) -> int:
    size = _header(scope, b"content-length")
    return int(size) if size.isdigit() else 0


def _header(scope: Scope, wanted: bytes) -> bytes:
    return b"; ".join(value for name, value in scope["headers"] if name.lower() == wanted)


async def _refuse(scope: Scope, send: Send, status: int, text: bytes) -> None:
    kind = b"text/plain; charset=utf-8"
    headers = [(b"connection", b"close")]
    if scope["path"].startswith(API):
        text, kind = _on_the_wire(status, text), b"application/json"
        headers.append((b"x-request-id", f"req_{uuid4().hex}".encode()))
    headers.append((b"content-type", kind))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text})


def _on_the_wire(status: int, text: bytes) -> bytes:
    """The refusal as clients of the API read it."""
    told = {"message": text.decode().strip(), "type": "invalid_request_error", "param": None, "code": API_CODES[status]}
    return json.dumps({"error": told}).encode()
