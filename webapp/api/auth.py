"""Whose request it is: the API key's person, and the team it is about."""

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest

from webapp.accounts import keys
from webapp.accounts.access import TeamRequest
from webapp.accounts.models import ApiKey, Membership, Role, User
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
    row = keys.row_of(key.strip()) if scheme.lower() == "bearer" else None
    if row is None:
        text = "This API key is not known here." if key else "No API key was sent."
        raise ApiError(401, f"{text} Send one as `Authorization: Bearer lr_…`.", code="invalid_api_key")
    membership = _membership(request, row.user)
    request.user, request.key = row.user, row  # type: ignore[attr-defined]  # what makes it an ApiRequest
    request.team, request.role = membership.team, Role(membership.role)  # type: ignore[attr-defined]
    return request  # type: ignore[return-value]


def require(request: ApiRequest, role: Role) -> None:
    """Raise PermissionDenied unless the person has at least this role in the request's team."""
    if not request.role.includes(role):
        raise PermissionDenied


def _membership(request: HttpRequest, user: User) -> Membership:
    """In the team that a header names, else in the one they worked in last, else in their personal one."""
    mine = Membership.objects.filter(user=user).select_related("team").order_by()
    header = next((name for name in TEAM_HEADERS if request.headers.get(name)), None)
    if header is None:
        last = next(iter(mine.filter(team=user.last_team_id)), None) if user.last_team_id else None
        return last or mine.get(team__personal_of=user)
    found = mine.filter(team__slug=request.headers[header].replace("\x00", "")).first()
    if found is None:
        text = f"{header} names no team of yours; it takes the slug of one, as in the team page's address."
        raise ApiError(401, text, param=header, code="invalid_organization")
    return found
