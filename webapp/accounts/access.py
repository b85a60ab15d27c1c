"""The gate: an object as this user may have it, or 404 for a stranger, 403 for a role that is too low."""

from typing import TypeVar
from uuid import UUID

from django.core.exceptions import PermissionDenied
from django.db import models
from django.http import HttpRequest
from django.shortcuts import get_object_or_404

from webapp.accounts.models import Role, Team, User


class TeamRequest(HttpRequest):
    """A request of a logged-in person; the middleware sets `team`, the team they work in now."""

    user: User  # every view that takes a TeamRequest is behind @login_required
    team: Team


M = TypeVar("M", bound=models.Model)


def get_visible(rows: "models.QuerySet[M]", pk: UUID) -> M:
    """One of the rows a user may see (`Model.objects.visible_to(user)`), or 404."""
    return get_object_or_404(rows, pk=pk)


def get_with_role(rows: "models.QuerySet[M]", pk: UUID, user: User, role: Role = Role.MEMBER) -> M:
    """One of the rows a user may see and whose team gives them at least `role`; else 404 or 403."""
    found = get_object_or_404(rows, pk=pk)
    require_role(found.team, user, role)  # type: ignore[attr-defined]  # every team-owned model has `team`
    return found


def require_role(team: Team, user: User, role: Role) -> None:
    """Raise PermissionDenied unless the user's role in the team is at least `role`."""
    if not has_role(team, user, role):
        raise PermissionDenied


def has_role(team: Team, user: User, role: Role = Role.MEMBER) -> bool:
    """The same as an answer, such as for what a page offers."""
    held = team.role_of(user)
    return held is not None and held.includes(role)
