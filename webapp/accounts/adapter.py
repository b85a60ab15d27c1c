"""How django-allauth behaves here: nobody signs up without an invitation, and logins are in the audit trail."""

import logging
from typing import Any, ClassVar

from allauth.account.adapter import DefaultAccountAdapter
from allauth.core import context as allauth_context
from allauth.core.internal.ratelimit import get_ip
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme

from webapp.accounts import audit
from webapp.accounts.models import User

logger = logging.getLogger(__name__)


class AccountAdapter(DefaultAccountAdapter):  # type: ignore[misc]  # allauth ships no types
    error_messages: ClassVar[dict[str, str]] = DefaultAccountAdapter.error_messages | {
        # As ACCOUNT_RATE_LIMITS has it
        "too_many_login_attempts": "Too many failed logins. Try again in 15 minutes; after thirty, in 6 hours."
    }

    def is_open_for_signup(self, request: HttpRequest) -> bool:
        return False

    def is_safe_url(self, url: str) -> bool:
        """Where `next` may lead: this very site alone. allauth would take all of ALLOWED_HOSTS."""
        return url_has_allowed_host_and_scheme(url, allowed_hosts=None)

    def get_client_ip(self, request: HttpRequest) -> str:
        """The visitor's address; those without one (a unix socket with no proxy declared) share one rate limit."""
        try:
            return str(super().get_client_ip(request))
        except PermissionDenied:
            return audit.UNKNOWN_ADDRESS

    def _get_login_attempts_cache_key(self, request: HttpRequest, **credentials: Any) -> str:
        """Tries are counted per account and address together, so that a stranger cannot lock a person out."""
        return f"{get_ip(request)}:{str(credentials.get('email', '')).lower()}"

    def login(self, request: HttpRequest, user: User) -> None:
        super().login(request, user)
        audit.record(actor=user, action="login", request=request)

    def authentication_failed(self, request: HttpRequest, **credentials: Any) -> None:
        audit.record(actor=None, action="login.failed", target=str(credentials.get("email", "")), request=request)

    def set_password(self, user: User, password: str) -> None:
        super().set_password(user, password)
        audit.record(actor=user, action="password.change", request=allauth_context.request)

    def get_password_change_redirect_url(self, request: HttpRequest) -> str:
        return reverse("settings")

    def send_mail(self, template_prefix: str, email: str, context: dict[str, Any]) -> None:
        """A mail server that is away is for the log: an error page would tell who has an account here."""
        try:
            super().send_mail(template_prefix, email, context)
        except OSError as error:
            logger.error("mail to %s was not sent: %s", email, error)
