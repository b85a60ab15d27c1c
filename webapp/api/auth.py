"""Whose request it is: the API key's person, and the team it is about."""

from functools import cache

from django.core.exceptions import PermissionDenied
from django.db.models import OuterRef, QuerySet, Subquery
from django.http import HttpRequest

from webapp.accounts import keys
from webapp.accounts.access import TeamRequest
from webapp.accounts.models import ApiKey, Membership, Role, Team
from webapp.api.wire import ApiError

TEAM_HEADERS = ("OpenAI-Project", "OpenAI-Organization")  # the narrower one counts when both are sent


class ApiRequest(TeamRequest):
    """A request with a good key. `role` is the person's role in `team`."""

    key: ApiKey
    role: Role
    limit_headers: dict[str, str]  # of the answer: see limits.py


def authenticate(request: HttpRequest) -> ApiRequest:
    """The same request with `user`, `key`, `team` and `role`; sessions count for nothing here.

    Raises ApiError 401 for a missing or wrong key, and for a team that the key's person is not in.
    """
    scheme, _, key = request.headers.get("Authorization", "").partition(" ")
    row = keys.row_of(key.strip(), _with_last_team()) if scheme.lower() == "bearer" else None
    if row is None:
        text = "This API key is not known here." if key else "No API key was sent."
        raise ApiError(401, f"{text} Send one as `Authorization: Bearer lr_…`.", code="invalid_api_key")
    team, role = _place(request, row)
    request.user, request.key = row.user, row  # type: ignore[attr-defined]  # what makes it an ApiRequest
    request.team, request.role = team, Role(role)  # type: ignore[attr-defined]
    return request  # type: ignore[return-value]


def require(request: ApiRequest, role: Role) -> None:
    """Raise PermissionDenied unless the person has at least this role in the request's team."""
    if not request.role.includes(role):
        raise PermissionDenied


@cache
def _with_last_team() -> QuerySet[ApiKey]:
    """Keys with what most requests need, in one query; `last_role` is the person's in the team they worked in last."""
    role = Membership.objects.filter(user=OuterRef("user"), team=OuterRef("user__last_team")).values("role")
    return ApiKey.objects.select_related("user__last_team").annotate(last_role=Subquery(role))


def _place(request: HttpRequest, key: ApiKey) -> tuple[Team, str]:
    """The team that a header names, else the one they worked in last, else their personal one; and their role there."""
    user, last_role = key.user, key.last_role  # type: ignore[attr-defined]  # see `_with_last_team`
    header = next((name for name in TEAM_HEADERS if request.headers.get(name)), None)
    if header is None and user.last_team and last_role:
        return user.last_team, last_role
    mine = Membership.objects.filter(user=user).select_related("team")
    if header is None:
        found = mine.get(team__personal_of=user)
    elif (named := mine.filter(team__slug=request.headers[header].replace("\x00", "")).first()) is not None:
        found = named
    else:
        text = f"{header} names no team of yours; it takes the slug of one, as in the team page's address."
        raise ApiError(401, text, param=header, code="invalid_organization")
    return found.team, found.role
