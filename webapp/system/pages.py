"""Home and the machines page, and the running jobs at the foot of the rail."""

from django.contrib.auth.decorators import login_required
from django.http import HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from webapp.accounts.access import TeamRequest
from webapp.system.home import home_context
from webapp.system.machines import machines_context

FRAGMENT = "HX-Request"


@login_required
@require_safe
def home(request: TeamRequest) -> HttpResponse:
    """The page, or for htmx only what changes on it."""
    template = "system/_home.html" if FRAGMENT in request.headers else "system/home.html"
    return render(request, template, home_context(request))


@login_required
@require_safe
def running(request: TeamRequest) -> HttpResponse:
    return render(request, "_running.html")


@login_required
@require_safe
def machines(request: TeamRequest) -> HttpResponse:
    template = "system/_machines.html" if FRAGMENT in request.headers else "system/machines.html"
    return render(request, template, machines_context(request))
