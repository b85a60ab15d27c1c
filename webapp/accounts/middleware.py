"""Puts the team a person works in now on the request."""

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse

from webapp.accounts.models import Team, User
from webapp.accounts.services import personal_team

SESSION_KEY = "team"


class CurrentTeamMiddleware:
    """`request.team`: the one chosen last, as long as the person is still in it; else their personal team."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if isinstance(request.user, User):
            chosen = request.session.get(SESSION_KEY)
            team = Team.objects.visible_to(request.user).filter(pk=chosen).first() if chosen else None
            request.team = team or personal_team(request.user)  # type: ignore[attr-defined]
        return self.get_response(request)
