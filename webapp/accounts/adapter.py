"""How django-allauth behaves here: nobody signs up without an invitation, and logins are in the audit trail."""

from typing import Any

from allauth.account.adapter import DefaultAccountAdapter
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest

from webapp.accounts import audit
from webapp.accounts.models import User


class AccountAdapter(DefaultAccountAdapter):  # type: ignore[misc]  # allauth ships no types
    def is_open_for_signup(self, request: HttpRequest) -> bool:
        return False

    def get_client_ip(self, request: HttpRequest) -> str:
        """The visitor's address; those without one (a unix socket with no proxy declared) share one rate limit."""
        try:
            return str(super().get_client_ip(request))
        except PermissionDenied:
            return audit.UNKNOWN_ADDRESS

    def login(self, request: HttpRequest, user: User) -> None:
        super().login(request, user)
        audit.record(actor=user, action="login", request=request)

    def authentication_failed(self, request: HttpRequest, **credentials: Any) -> None:
        email = str(credentials.get("email", ""))
        audit.record(actor=None, action="login.failed", target=email, request=request)

    def add_message(self, *args: Any, **kwargs: Any) -> None:
        """Silent: the page that follows a login or logout says enough."""
