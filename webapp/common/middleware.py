"""Middleware of the whole site: private caching, and user errors as pages or fragments."""

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from webapp.common.errors import UserError

GetResponse = Callable[[HttpRequest], HttpResponse]


class PrivateCacheMiddleware:
    """Pages of a logged-in person never land in a shared cache, nor in the browser's after logging out."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        if request.user.is_authenticated and not response.has_header("Cache-Control"):
            response["Cache-Control"] = "private, no-store"
        return response


class UserErrorMiddleware:
    """A UserError raised in a view becomes a page that says what happened and what to do; htmx gets the fragment."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        if not isinstance(exception, UserError):
            return None
        fragment = request.headers.get("HX-Request") == "true"
        template = "_user_error.html" if fragment else "user_error.html"
        return render(request, template, {"error": exception}, status=exception.status)
