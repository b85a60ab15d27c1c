"""Ends a request with too large a body before it is read, or once it shows: Django alone would spool it all."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

Scope = dict[str, Any]
Message = Mapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

FORM_OVERHEAD = 8 * 1024 * 1024  # what a form may hold beside its file


def limit_body(application: Application, limit: int) -> Application:
    """The application, with bodies of at most `limit` bytes; larger ones are answered with 413."""

    async def limited(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await application(scope, receive, send)
            return
        if _claimed_size(scope) > limit:
            await _refuse(send)
            return
        body = _Counted(receive, limit)
        await application(scope, body, send)
        if body.too_large:
            await _refuse(send)

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


def _claimed_size(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name.lower() == b"content-length" and value.isdigit():
            return int(value)
    return 0


async def _refuse(send: Send) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": 413, "headers": headers})
    await send({"type": "http.response.body", "body": b"The upload is larger than this server takes.\n"})
