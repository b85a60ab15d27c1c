"""Puts the team a person works in now on the request."""

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse

from webapp.accounts.models import Team, User
from webapp.accounts.services import personal_team

SESSION_KEY = "team"


def work_in(request: HttpRequest, team: Team) -> None:
    """Choose the team for this login, and for logins to come."""
    request.session[SESSION_KEY] = str(team.pk)
    if isinstance(request.user, User):
        User.objects.filter(pk=request.user.pk).update(last_team=team)


class CurrentTeamMiddleware:
    """`request.team`: the one chosen last, in this login or before, as long as the person is still in it.

    Else it is their personal team.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if isinstance(request.user, User):
            chosen = request.session.get(SESSION_KEY) or request.user.last_team_id
            team = Team.objects.visible_to(request.user).filter(pk=chosen).first() if chosen else None
            request.team = team or personal_team(request.user)  # type: ignore[attr-defined]
        return self.get_response(request)
