"""Doors for people without an account: the first owner's set-up page and invitations."""

from django.contrib import messages
from django.contrib.auth import login
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods

from webapp.accounts import services
from webapp.accounts.forms import AccountForm, posted
from webapp.accounts.middleware import work_in
from webapp.accounts.models import Team, User


@require_http_methods(["GET", "HEAD", "POST"])
@never_cache
@sensitive_post_parameters("password")
def setup(request: HttpRequest, token: str) -> HttpResponse:
    if not services.is_setup_token(token):
        raise Http404
    form = AccountForm(posted(request))
    if form.is_valid():
        login(request, services.create_owner(**form.cleaned_data, request=request))
        return redirect("home")
    return render(request, "accounts/setup.html", {"form": form}, status=422 if form.is_bound else 200)


@require_http_methods(["GET", "HEAD", "POST"])
@never_cache
@sensitive_post_parameters("password")
def invitation(request: HttpRequest, token: str) -> HttpResponse:
    invited = services.open_invitation(token)
    ctx = {"invitation": invited, "token": token, "team": invited.team}
    if isinstance(request.user, User):
        if request.method == "POST":
            return _enter(request, services.accept_invitation(token=token, user=request.user, request=request))
        return render(request, "accounts/invitation_join.html", ctx | {"held": invited.team.role_of(request.user)})
    form = AccountForm(posted(request))
    if form.is_valid():
        user, team = services.register_invited(token=token, **form.cleaned_data, request=request)
        login(request, user)
        return _enter(request, team)
    return render(request, "accounts/invitation.html", ctx | {"form": form}, status=422 if form.is_bound else 200)


def _enter(request: HttpRequest, team: Team) -> HttpResponse:
    """Home, with the team just joined as the one worked in."""
    work_in(request, team)
    messages.success(request, f"You are in {team.name} now.")
    return redirect("home")
