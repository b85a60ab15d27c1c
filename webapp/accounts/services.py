"""What people ask for: the server's first owner, accounts, teams, invitations and roles."""

import os
from datetime import timedelta
from itertools import count
from typing import Any

from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ImproperlyConfigured, ValidationError
from django.core.validators import validate_email
from django.db import IntegrityError, transaction
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone
from django.utils.text import slugify

from webapp.accounts import audit
from webapp.accounts.models import FirstStart, Invitation, Membership, Role, Team, User
from webapp.accounts.tokens import hash_of, matches, new_token
from webapp.common.errors import UserError

INVITATION_LASTS = timedelta(days=7)
TEAM_CONTENTS = ("datasets", "jobs", "adapters", "api_files")  # related names of what must go before it


def setup_link() -> str | None:
    """The path of a fresh set-up link while nobody has an account, else None. Links made before stop working."""
    if User.objects.exists():
        return None
    token = new_token()
    FirstStart.objects.update_or_create(pk=1, defaults={"token_hash": hash_of(token), "used_at": None})
    return reverse("setup", args=[token])


def is_setup_token(token: str) -> bool:
    """Whether this is the newest set-up link of a server without an owner. Raises already_set_up when it has one."""
    if User.objects.exists():
        raise UserError("already_set_up")
    row = FirstStart.objects.filter(pk=1).first()
    return row is not None and matches(token, row.token_hash)


def create_owner(*, email: str, password: str, name: str = "", request: HttpRequest | None = None) -> User:
    """The server's owner. Of several people at the same moment one becomes it."""
    with transaction.atomic():
        FirstStart.objects.get_or_create(pk=1)
        won = FirstStart.objects.filter(pk=1, used_at=None).update(used_at=timezone.now())
        if not won or User.objects.exists():
            raise UserError("already_set_up")
        user = create_user(email=email, password=password, name=name, is_staff=True, is_superuser=True)
        audit.record(actor=user, action="server.setup", team=user.personal_team, target=email, request=request)
    return user


def create_owner_from_environment() -> User | None:
    """The owner that DJANGO_SUPERUSER_EMAIL and DJANGO_SUPERUSER_PASSWORD name, when the server has none yet.

    Raises ImproperlyConfigured with a sentence when they cannot be used.
    """
    email = os.environ.get("DJANGO_SUPERUSER_EMAIL", "").strip()
    password = os.environ.get("DJANGO_SUPERUSER_PASSWORD", "")
    if not (email or password) or User.objects.exists():
        return None
    _check_environment(email, password)
    try:
        return create_owner(email=email, password=password)
    except UserError:
        return None  # another process of the same start was first


def _check_environment(email: str, password: str) -> None:
    if not (email and password):
        missing = "DJANGO_SUPERUSER_PASSWORD" if email else "DJANGO_SUPERUSER_EMAIL"
        raise ImproperlyConfigured(f"{missing} is not set. Set both it and its partner, or neither.")
    try:
        validate_email(email)
    except ValidationError:
        raise ImproperlyConfigured(f"DJANGO_SUPERUSER_EMAIL is {email!r}, which is no e-mail address.") from None
    try:
        validate_password(password, User(email=email))
    except ValidationError as error:
        raise ImproperlyConfigured(f"DJANGO_SUPERUSER_PASSWORD cannot be used. {' '.join(error.messages)}") from None


def create_user(*, email: str, password: str, name: str = "", **extra: Any) -> User:
    """A person with their personal team."""
    with transaction.atomic():
        try:
            with transaction.atomic():
                user = User.objects.create_user(email, password, name=name, **extra)
        except IntegrityError:
            raise UserError("email_taken", email=email) from None
        personal_team(user)
    return user


def personal_team(user: User) -> Team:
    """The user's own team, made when it is missing: Django's command `createsuperuser` knows of no teams."""
    found = Team.objects.filter(personal_of=user).first()
    return found or _new_team(user, (user.name or user.email.split("@")[0])[:80], personal_of=user)


def create_team(*, user: User, name: str, request: HttpRequest | None = None) -> Team:
    with transaction.atomic():
        team = _new_team(user, name)
        audit.record(actor=user, action="team.create", team=team, target=name, request=request)
    return team


def _new_team(owner: User, name: str, *, personal_of: User | None = None) -> Team:
    """A team with its first owner. The slug is the name in plain letters, with a number where that is taken."""
    stem = slugify(name)[:80].strip("-") or "team"
    for number in count(1):
        slug = stem if number == 1 else f"{stem}-{number}"
        if Team.objects.filter(slug=slug).exists():
            continue
        try:
            with transaction.atomic():
                team = Team.objects.create(name=name, slug=slug, personal_of=personal_of)
                Membership.objects.create(team=team, user=owner, role=Role.OWNER)
        except IntegrityError:
            if not Team.objects.filter(slug=slug).exists():
                raise
            continue  # somebody took the slug since we looked
        break
    return team


def rename_team(*, team: Team, name: str, actor: User, request: HttpRequest | None = None) -> None:
    """The slug stays: links to the team keep working."""
    with transaction.atomic():
        Team.objects.filter(pk=team.pk).update(name=name)
        audit.record(actor=actor, action="team.rename", team=team, target=f"{team.name} to {name}", request=request)


def delete_team(*, team: Team, actor: User, request: HttpRequest | None = None) -> None:
    """Only an empty team can go: what it owns must not vanish by the way. Conversations do: nobody else sees them."""
    with transaction.atomic():
        _lock(team)
        if team.personal_of_id:
            raise UserError("personal_team")
        if any(getattr(team, name).exists() for name in TEAM_CONTENTS):
            raise UserError("team_in_use", team=team.name)
        audit.record(actor=actor, action="team.delete", target=team.name, request=request)
        team.delete()


def invite(*, team: Team, role: Role, actor: User, request: HttpRequest | None = None) -> str:
    """Make an invitation and return the token of its link; this is the only time it can be read."""
    token = new_token()
    with transaction.atomic():
        Invitation.objects.create(
            team=team,
            role=role,
            token_hash=hash_of(token),
            created_by=actor,
            expires_at=timezone.now() + INVITATION_LASTS,
        )
        audit.record(actor=actor, action="invitation.create", team=team, target=role, request=request)
    return token


def open_invitation(token: str) -> Invitation:
    """The invitation of a link. One answer for used, expired, deleted and invented links."""
    found = Invitation.objects.open().select_related("team", "created_by").filter(token_hash=hash_of(token)).first()
    if found is None:
        raise UserError("invitation_used")
    return found


def accept_invitation(*, token: str, user: User, request: HttpRequest | None = None) -> Team:
    """Join the team. A link works once: of several people at the same moment one gets in.

    Who is in the team already keeps their role, and the link stays good for somebody else.
    """
    with transaction.atomic():
        invitation = open_invitation(token)
        team = invitation.team
        if team.role_of(user):
            return team
        taken = Invitation.objects.open().filter(pk=invitation.pk).update(used_at=timezone.now(), used_by=user)
        if not taken:
            raise UserError("invitation_used")
        Membership.objects.get_or_create(team=team, user=user, defaults={"role": invitation.role})
        audit.record(actor=user, action="invitation.accept", team=team, target=invitation.role, request=request)
    return team


def register_invited(
    *, token: str, email: str, name: str, password: str, request: HttpRequest | None = None
) -> tuple[User, Team]:
    """Make an account and join the team with it, or neither."""
    with transaction.atomic():
        user = create_user(email=email, name=name, password=password)
        team = accept_invitation(token=token, user=user, request=request)
    return user, team


def delete_invitation(*, invitation: Invitation, actor: User, request: HttpRequest | None = None) -> None:
    with transaction.atomic():
        audit.record(
            actor=actor, action="invitation.delete", team=invitation.team, target=invitation.role, request=request
        )
        invitation.delete()


def change_role(*, membership: Membership, role: Role, actor: User, request: HttpRequest | None = None) -> None:
    team, user = membership.team, membership.user
    with transaction.atomic():
        _lock(team)
        held = team.role_of(user)
        if held is None or held == role:
            return
        if role != Role.OWNER:
            _require_other_owner(team, user)
            _close_invitations(team, user)
        team.memberships.filter(user=user).update(role=role)
        target = f"{user.email}: {held.label} to {role.label}"
        audit.record(actor=actor, action="role.change", team=team, target=target, request=request)


def remove_member(*, membership: Membership, actor: User, request: HttpRequest | None = None) -> None:
    """Take a person out of the team, or leave it oneself. All access asks for the membership, so it ends now."""
    team, user = membership.team, membership.user
    with transaction.atomic():
        _lock(team)
        _require_other_owner(team, user)
        _close_invitations(team, user)
        if team.memberships.filter(user=user).delete()[0]:
            action = "team.leave" if actor == user else "member.remove"
            audit.record(actor=actor, action=action, team=team, target=user.email, request=request)


def _lock(team: Team) -> None:
    """Two owners who leave at the same moment must not both see the other as the one who stays."""
    Team.objects.select_for_update().get(pk=team.pk)


def _require_other_owner(team: Team, user: User) -> None:
    """Raise unless the team can do without this person as its owner."""
    if team.personal_of_id == user.pk:
        raise UserError("personal_team")
    owners = team.memberships.filter(role=Role.OWNER)
    if owners.filter(user=user).exists() and not owners.exclude(user=user).exists():
        raise UserError("last_owner")


def _close_invitations(team: Team, user: User) -> None:
    """Links a former owner made must not let them back in."""
    Invitation.objects.open().filter(team=team, created_by=user).delete()
