"""The audit trail: one row for each privileged act. Rows are added, never changed, and hold no secret."""

from allauth.account.adapter import get_adapter
from allauth.core import context as allauth_context
from django.http import HttpRequest

from webapp.accounts.models import AuditEntry, Team, User

UNKNOWN_ADDRESS = "0.0.0.0"  # noqa: S104 - nothing binds here; see AccountAdapter.get_client_ip


def record(
    *, actor: User | None, action: str, team: Team | None = None, target: str = "", request: HttpRequest | None = None
) -> AuditEntry:
    """Note that `actor` did `action` (such as "adapter.share") to `target`, a name people recognise.

    Call it inside the transaction of the act, so that either both happened or neither.
    """
    request = request or allauth_context.request  # who calls from a service has none at hand
    ip = address_of(request) if request else None
    return AuditEntry.objects.create(actor=actor, action=action, team=team, target=one_line(target), ip=ip)


def one_line(text: str) -> str:
    """Text as a row holds it: one line, no NUL (PostgreSQL refuses it), cut to the column."""
    return " ".join(text.replace("\x00", "").split())[:200]


def address_of(request: HttpRequest) -> str | None:
    """The visitor's address. Forwarded headers count only behind a declared proxy, as anybody can forge them."""
    found: str = get_adapter().get_client_ip(request)
    return None if found == UNKNOWN_ADDRESS else found
