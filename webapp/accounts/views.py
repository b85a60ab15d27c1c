"""Pages about teams and about oneself."""

from typing import Any
from uuid import UUID

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from webapp.accounts import keys, services
from webapp.accounts.access import TeamRequest, require_role
from webapp.accounts.forms import ApiKeyForm, ProfileForm, RoleForm, TeamForm, posted
from webapp.accounts.middleware import work_in
from webapp.accounts.models import Role, Team

AUDIT_ROWS = 50


def _get_team(request: TeamRequest, slug: str, role: Role = Role.OWNER) -> Team:
    """The team as this user may have it: 404 for a stranger, 403 for a role below `role`."""
    found = get_object_or_404(Team.objects.visible_to(request.user), slug=slug)
    require_role(found, request.user, role)
    return found


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def teams(request: TeamRequest) -> HttpResponse:
    form = TeamForm(posted(request))
    if form.is_valid():
        made = services.create_team(user=request.user, name=form.cleaned_data["name"], request=request)
        work_in(request, made)
        return redirect("team", made.slug)
    memberships = request.user.memberships.select_related("team").order_by("created_at")
    ctx = {"memberships": memberships, "form": form}
    return render(request, "accounts/teams.html", ctx, status=422 if form.is_bound else 200)


@login_required
@require_safe
def team(request: TeamRequest, slug: str) -> HttpResponse:
    found = _get_team(request, slug, Role.VIEWER)
    return render(request, "accounts/team.html", _team_ctx(request, found))


def _team_ctx(request: TeamRequest, found: Team, **extra: Any) -> dict[str, Any]:
    """All of the team's page; what owners alone see is empty for others."""
    is_owner = found.role_of(request.user) == Role.OWNER
    members = list(found.memberships.select_related("user").order_by("created_at"))
    ctx = {
        "team": found,
        "is_owner": is_owner,
        "has_one_owner": sum(one.role == Role.OWNER for one in members) == 1,
        "roles": Role.choices,
        "members": members,
        "invitations": found.invitations.open().select_related("created_by") if is_owner else [],
        "entries": found.audit_entries.select_related("actor")[:AUDIT_ROWS] if is_owner else [],
        "invitation_form": RoleForm(),
        "rename_form": TeamForm(initial={"name": found.name}),
    }
    return ctx | extra


@login_required
@require_POST
def team_switch(request: TeamRequest, slug: str) -> HttpResponse:
    found = _get_team(request, slug, Role.VIEWER)
    work_in(request, found)
    return redirect("home")


@login_required
@require_POST
def team_rename(request: TeamRequest, slug: str) -> HttpResponse:
    found = _get_team(request, slug)
    form = TeamForm(request.POST)
    if not form.is_valid():
        return render(request, "accounts/team.html", _team_ctx(request, found, rename_form=form), status=422)
    services.rename_team(team=found, name=form.cleaned_data["name"], actor=request.user, request=request)
    return redirect("team", found.slug)


@login_required
@require_POST
def team_leave(request: TeamRequest, slug: str) -> HttpResponse:
    found = _get_team(request, slug, Role.VIEWER)
    membership = get_object_or_404(found.memberships, user=request.user)
    services.remove_member(membership=membership, actor=request.user, request=request)
    messages.success(request, f"You left {found.name}.")
    return redirect("teams")


@login_required
@require_POST
def team_delete(request: TeamRequest, slug: str) -> HttpResponse:
    found = _get_team(request, slug)
    services.delete_team(team=found, actor=request.user, request=request)
    messages.success(request, f"{found.name} was deleted.")
    return redirect("teams")


@login_required
@require_POST
@never_cache
def team_invite(request: TeamRequest, slug: str) -> HttpResponse:
    """Answers with the page itself and not with a redirect: the link is in this answer and nowhere else."""
    found = _get_team(request, slug)
    form = RoleForm(request.POST)
    if not form.is_valid():
        return render(request, "accounts/team.html", _team_ctx(request, found, invitation_form=form), status=422)
    role = Role(form.cleaned_data["role"])
    token = services.invite(team=found, role=role, actor=request.user, request=request)
    link = request.build_absolute_uri(reverse("invitation", args=[token]))
    template = "accounts/_invitations.html" if request.headers.get("HX-Request") else "accounts/team.html"
    return render(request, template, _team_ctx(request, found, new_link=link))


@login_required
@require_POST
def invitation_delete(request: TeamRequest, slug: str, pk: UUID) -> HttpResponse:
    found = _get_team(request, slug)
    invitation = get_object_or_404(found.invitations, pk=pk)
    services.delete_invitation(invitation=invitation, actor=request.user, request=request)
    return redirect("team", found.slug)


@login_required
@require_POST
def member_role(request: TeamRequest, slug: str, pk: UUID) -> HttpResponse:
    found = _get_team(request, slug)
    membership = get_object_or_404(found.memberships, user=pk)
    form = RoleForm(request.POST)
    if form.is_valid():
        role = Role(form.cleaned_data["role"])
        services.change_role(membership=membership, role=role, actor=request.user, request=request)
        messages.success(request, f"{membership.user} is {role.label.lower()} now.")
    return redirect("team", found.slug)


@login_required
@require_POST
def member_remove(request: TeamRequest, slug: str, pk: UUID) -> HttpResponse:
    found = _get_team(request, slug)
    membership = get_object_or_404(found.memberships, user=pk)
    services.remove_member(membership=membership, actor=request.user, request=request)
    messages.success(request, f"{membership.user} is no longer in {found.name}.")
    return redirect("team", found.slug)


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def settings(request: TeamRequest) -> HttpResponse:
    form = ProfileForm(posted(request), initial={"name": request.user.name})
    if form.is_valid():
        request.user.name = form.cleaned_data["name"]
        request.user.save(update_fields=["name"])
        messages.success(request, "Your name is saved.")
        return redirect("settings")
    ctx = _settings_ctx(request, profile_form=form)
    return render(request, "accounts/settings.html", ctx, status=422 if form.is_bound else 200)


def _settings_ctx(request: TeamRequest, **extra: Any) -> dict[str, Any]:
    ctx = {
        "profile_form": ProfileForm(initial={"name": request.user.name}),
        "key_form": ApiKeyForm(),
        "keys": request.user.api_keys.all(),
        "api_address": request.build_absolute_uri("/v1"),
    }
    return ctx | extra


@login_required
@require_POST
@never_cache
def api_key_new(request: TeamRequest) -> HttpResponse:
    """Answers with the page itself and not with a redirect: the key is in this answer and nowhere else."""
    form = ApiKeyForm(request.POST)
    if not form.is_valid():
        return render(request, "accounts/settings.html", _settings_ctx(request, key_form=form), status=422)
    key = keys.create(user=request.user, name=form.cleaned_data["name"], request=request)
    template = "accounts/_keys.html" if request.headers.get("HX-Request") else "accounts/settings.html"
    return render(request, template, _settings_ctx(request, new_key=key))


@login_required
@require_POST
def api_key_revoke(request: TeamRequest, pk: UUID) -> HttpResponse:
    key = get_object_or_404(request.user.api_keys, pk=pk)
    keys.revoke(key, actor=request.user, request=request)
    messages.success(request, f"The key {key.name} no longer works.")
    return redirect("settings")
