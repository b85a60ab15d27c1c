"""API keys: `lr_<id>_<secret>`, shown once when made; the id finds the row, the hash of the whole proves it."""

import re
import secrets
from datetime import timedelta

from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone

from webapp.accounts import audit
from webapp.accounts.models import ApiKey, User
from webapp.accounts.tokens import hash_of, matches, new_token

SHAPE = re.compile(r"lr_([0-9a-f]{12})_[A-Za-z0-9_-]{43}")
NOBODY = hash_of("")  # an unknown id is compared too, so that it takes as long as a known one
USE_NOTED_EVERY = timedelta(minutes=1)  # a busy script must not write a row with every call


@transaction.atomic
def create(*, user: User, name: str, request: HttpRequest | None = None) -> str:
    """Make a key and return it; this is the only time it can be read."""
    prefix = secrets.token_hex(6)
    key = f"lr_{prefix}_{new_token()}"
    ApiKey.objects.create(user=user, name=name, prefix=prefix, key_hash=hash_of(key))
    audit.record(actor=user, action="key.create", target=f"{name} ({prefix})", request=request)
    return key


@transaction.atomic
def revoke(key: ApiKey, *, actor: User, request: HttpRequest | None = None) -> None:
    """The key stops working at once. The row stays, so that the list tells what was."""
    if ApiKey.objects.filter(pk=key.pk, revoked_at=None).update(revoked_at=timezone.now()):
        audit.record(actor=actor, action="key.revoke", target=str(key), request=request)


def user_of(key: str) -> User | None:
    """Whose key this is; None for a wrong or revoked key and for a person who may not log in any more."""
    row = row_of(key)
    return row.user if row else None


def row_of(key: str, rows: QuerySet[ApiKey] | None = None) -> ApiKey | None:
    """The key's row with its user, found among `rows` if they are given; None where `user_of` says so."""
    shape = SHAPE.fullmatch(key)
    if shape is None:
        return None
    rows = ApiKey.objects.select_related("user") if rows is None else rows
    found = rows.filter(prefix=shape[1], revoked_at=None, user__is_active=True)
    row = next(iter(found.order_by()), None)  # there is one at most, so nothing to sort
    if not matches(key, row.key_hash if row else NOBODY) or row is None:
        return None
    note_use(row)
    return row


def note_use(key: ApiKey) -> None:
    now = timezone.now()
    if key.last_used_at is None or now - key.last_used_at > USE_NOTED_EVERY:
        ApiKey.objects.filter(pk=key.pk).update(last_used_at=now)
