"""Home and the machines page."""

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render


@login_required
def home(request: HttpRequest) -> HttpResponse:
    return render(request, "system/home.html")


@login_required
def machines(request: HttpRequest) -> HttpResponse:
    return render(request, "system/machines.html")


@login_required
def running(request: HttpRequest) -> HttpResponse:
    """The running jobs at the foot of the rail."""
    return render(request, "_running.html")
