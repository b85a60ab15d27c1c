"""How a request comes in: by its method to one handler, with a good key, within the key's rate."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from asgiref.sync import sync_to_async
from django.http import HttpRequest, HttpResponseBase

from webapp.api.auth import ApiRequest, authenticate
from webapp.api.idempotency import once
from webapp.api.limits import count
from webapp.api.wire import ApiError
from webapp.common.request_threads import MOST_OPEN, let_go_of_thread

View = Callable[..., Any]


@dataclass(frozen=True)
class InTwo:
    """A handler whose answer takes long: `ask` on the request's thread, then `answer` with what that gave, on the event
    loop. What the key is and what it asks for are found in one trip to the thread: each takes time.

    `leave` with what `ask` gave, on a thread too, when the client left before it came to the answer.
    """

    ask: Callable[..., Any]
    answer: Callable[..., Awaitable[HttpResponseBase]]
    leave: Callable[[Any], None]


Handler = Callable[..., HttpResponseBase] | InTwo


class MethodNotAllowed(ApiError):
    """405, which must name the methods that are."""

    def __init__(self, request: HttpRequest, allowed: list[str]) -> None:
        text = f"{request.method} is not possible on {request.path}. Use {', '.join(allowed)}."
        super().__init__(405, text, code="method_not_allowed")
        self.headers = {"Allow": ", ".join(allowed)}


def door(**handlers: Handler) -> View:
    """One address: `door(GET=list_files, POST=create_file)`. Handlers take an ApiRequest, and raise ApiError,
    UserError, Http404 or PermissionDenied; see border.py."""

    def enter(request: HttpRequest, **arguments: Any) -> HttpResponseBase:
        handler = _handler(handlers, request)
        admitted = admit(request)
        return once(admitted, lambda: handler(admitted, **arguments))  # type: ignore[operator]  # not in two

    async def enter_in_two(request: HttpRequest, **arguments: Any) -> HttpResponseBase:
        handler = _handler(handlers, request)
        if not isinstance(handler, InTwo):
            return await sync_to_async(enter)(request, **arguments)
        admitted, asked = await _asked(handler, request, arguments)
        await let_go_of_thread(most_open=MOST_OPEN)
        return await handler.answer(admitted, asked)

    view: View = enter_in_two if any(isinstance(one, InTwo) for one in handlers.values()) else enter
    view.methods = tuple(handlers)  # type: ignore[attr-defined]  # who asks what this address takes
    view.names_posts = not isinstance(handlers.get("POST"), InTwo)  # type: ignore[attr-defined]  # see idempotency
    return view


async def _asked(handler: InTwo, request: HttpRequest, arguments: Mapping[str, Any]) -> tuple[ApiRequest, Any]:
    """A client that leaves does not stop the thread: what it began meanwhile is let go of."""
    asking = asyncio.create_task(sync_to_async(_ask)(handler, request, arguments))
    try:
        return await asyncio.shield(asking)
    except asyncio.CancelledError:
        await asyncio.wait([asking])
        if asking.exception() is None:
            await sync_to_async(handler.leave)(asking.result()[1])
        raise


def _ask(handler: InTwo, request: HttpRequest, arguments: Mapping[str, Any]) -> tuple[ApiRequest, Any]:
    admitted = admit(request)
    return admitted, handler.ask(admitted, **arguments)


def admit(request: HttpRequest) -> ApiRequest:
    """The request with its person and team, counted against the key's rate."""
    admitted = authenticate(request)
    admitted.limit_headers = count(admitted.key)
    return admitted


def _handler(handlers: dict[str, Handler], request: HttpRequest) -> Handler:
    method = "GET" if request.method == "HEAD" else str(request.method)
    if method not in handlers:
        raise MethodNotAllowed(request, list(handlers))
    return handlers[method]
