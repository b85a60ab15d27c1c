"""How a request comes in: by its method to one handler, with a good key, within the key's rate."""

from collections.abc import Awaitable, Callable
from inspect import iscoroutinefunction
from typing import Any

from asgiref.sync import sync_to_async
from django.http import HttpRequest, HttpResponseBase

from webapp.api.auth import ApiRequest, authenticate
from webapp.api.idempotency import once
from webapp.api.limits import count
from webapp.api.wire import ApiError

Handler = Callable[..., HttpResponseBase | Awaitable[HttpResponseBase]]
View = Callable[..., Any]


class MethodNotAllowed(ApiError):
    """405, which must name the methods that are."""

    def __init__(self, request: HttpRequest, allowed: list[str]) -> None:
        text = f"{request.method} is not possible on {request.path}. Use {', '.join(allowed)}."
        super().__init__(405, text, code="method_not_allowed")
        self.headers = {"Allow": ", ".join(allowed)}


def door(**handlers: Handler) -> View:
    """One address: `door(GET=list_files, POST=create_file)`. Handlers take an ApiRequest, may be async, and raise
    ApiError, UserError, Http404 or PermissionDenied; see border.py."""

    def enter(request: HttpRequest, **arguments: Any) -> HttpResponseBase:
        handler = _handler(handlers, request)
        admitted = admit(request)
        return once(admitted, lambda: handler(admitted, **arguments))  # type: ignore[arg-type,return-value]  # not async

    async def enter_async(request: HttpRequest, **arguments: Any) -> HttpResponseBase:
        handler = _handler(handlers, request)
        if not iscoroutinefunction(handler):
            return await sync_to_async(enter)(request, **arguments)
        admitted = await sync_to_async(admit)(request)
        return await handler(admitted, **arguments)  # type: ignore[no-any-return]

    view: View = enter_async if any(map(iscoroutinefunction, handlers.values())) else enter
    view.methods = tuple(handlers)  # type: ignore[attr-defined]  # who asks what this address takes
    return view


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
