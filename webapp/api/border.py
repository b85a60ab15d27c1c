"""The border of /v1: its requests pass by sessions, CSRF and pages, and every answer leaves in the wire's shape."""

import logging
from collections.abc import Awaitable, Callable
from inspect import iscoroutinefunction
from typing import Any
from uuid import uuid4

from asgiref.sync import async_to_sync, markcoroutinefunction, sync_to_async
from django.core.exceptions import PermissionDenied, RequestDataTooBig, SuspiciousOperation
from django.db import InterfaceError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, UnreadablePostError
from django.http.multipartparser import MultiPartParserError
from django.middleware.security import SecurityMiddleware
from django.urls import Resolver404, ResolverMatch, resolve

from webapp.api.wire import ApiError, error_response, from_user_error
from webapp.common.errors import UserError

logger = logging.getLogger(__name__)

ROOT = "/v1"
NOT_FOUND = ApiError(404, "There is nothing with this id, or your key may not see it.", code="not_found")
FORBIDDEN = ApiError(403, "Your role in this team does not allow this.", code="insufficient_role")
TOO_LARGE = ApiError(413, "The body is larger than this server takes here.", code="body_too_large")
UNREADABLE = ApiError(400, "The body could not be read to its end.", code="unreadable_body")
AWAY = ApiError(503, "The database does not answer right now.", code="unavailable", retry=True, retry_after=1)

GetResponse = Callable[[HttpRequest], HttpResponseBase | Awaitable[HttpResponseBase]]


class ApiMiddleware:
    """Takes what is below /v1 out of the pages' middleware; a chat that streams holds no thread this way."""

    sync_capable = async_capable = True

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response
        self.security = SecurityMiddleware(get_response)  # its own __call__ makes two trips to a thread
        self.is_async = iscoroutinefunction(get_response)
        if self.is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> Any:
        if not f"{request.path_info}/".startswith(f"{ROOT}/"):
            return self.get_response(request)
        return self._answer(request) if self.is_async else async_to_sync(self._answer)(request)

    async def _answer(self, request: HttpRequest) -> HttpResponseBase:
        response = self.security.process_request(request) or await answer(request)
        return self.security.process_response(request, response)  # type: ignore[arg-type]  # it asks for headers alone


async def answer(request: HttpRequest) -> HttpResponseBase:
    """Whatever happens, an answer in the wire's shape, with an id that the log has too."""
    request_id = f"req_{uuid4().hex}"
    response: HttpResponseBase
    try:
        match = _address(request)
        view = match.func if iscoroutinefunction(match.func) else sync_to_async(match.func)
        response = await view(request, *match.args, **match.kwargs)
    except Exception as error:  # noqa: BLE001 - the border: what is not known is logged there
        response = _failed(error, request, request_id)
    response["x-request-id"] = request_id
    for name, value in getattr(request, "limit_headers", {}).items():
        response[name] = value
    if not response.has_header("Cache-Control"):
        response["Cache-Control"] = "private, no-store"
    if isinstance(response, HttpResponse) and not response.has_header("Content-Length"):
        response["Content-Length"] = str(len(response.content))  # else it would go in chunks
    return response


def _address(request: HttpRequest) -> ResolverMatch:
    """The client never ends a path with a slash, people do; both lead to the same place."""
    try:
        if "%00" in request.META.get("QUERY_STRING", ""):  # PostgreSQL refuses it in any text
            param = next((name for name, value in request.GET.items() if "\x00" in value), None)
            raise ApiError(400, "The query has a NUL character.", param=param, code="invalid_query")
        match = request.resolver_match = resolve(request.path_info.rstrip("/"))
    except Resolver404:
        text = f"There is no such address: {request.method} {request.path}."
        raise ApiError(404, text, code="unknown_url") from None
    return match


def _failed(error: Exception, request: HttpRequest, request_id: str) -> HttpResponse:
    told = told_as(error)
    if told is None:
        logger.error("%s %s failed (%s)", request.method, request.path, request_id, exc_info=error)
        text = f"This failed on our side; the server's log has the cause under {request_id}."
        told = ApiError(500, text, code="internal_error")
    return error_response(told)


def told_as(error: Exception) -> ApiError | None:
    """What the client is told; None for what is nobody's fault but ours. Streams that break ask for it too."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, UserError):
        return from_user_error(error)
    for kinds, told in (
        ((Http404,), NOT_FOUND),
        ((PermissionDenied,), FORBIDDEN),
        ((RequestDataTooBig,), TOO_LARGE),
        ((UnreadablePostError, MultiPartParserError, SuspiciousOperation), UNREADABLE),
        ((OperationalError, InterfaceError), AWAY),
    ):
        if isinstance(error, kinds):
            return told
    return None
