"""Puts the team a person works in now on the request."""

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse

from webapp.accounts.models import Team

SESSION_KEY = "team"


class CurrentTeamMiddleware:
    """`request.team`: the one chosen last, as long as the person is still in it; else their personal team."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if request.user.is_authenticated:
            teams = Team.objects.visible_to(request.user)
            chosen = teams.filter(pk=request.session.get(SESSION_KEY)).first()
            request.team = chosen or teams.order_by("-personal_of", "created_at").first()  # type: ignore[attr-defined]
        return self.get_response(request)
