"""The reference page, and the OpenAPI document that it is made from."""

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from webapp.accounts.access import TeamRequest
from webapp.api.endpoints import DIFFERENCES, IDEMPOTENCY
from webapp.api.openapi import document
from webapp.api.reference_text import begin, groups


@require_safe
def openapi(request: HttpRequest) -> JsonResponse:
    """Open to all: it says nothing that is not the same on every server."""
    return JsonResponse(document(request.build_absolute_uri("/v1")))


@login_required
@require_safe
def reference(request: TeamRequest) -> HttpResponse:
    address = request.build_absolute_uri("/v1")
    told = {"begin": begin(address), "idempotency": IDEMPOTENCY, "differences": DIFFERENCES, "groups": groups(address)}
    return render(request, "api/reference.html", told)
