"""The pages of findings: what the survey of a version points out, and the fix of one kind before it is made."""

from typing import Any
from uuid import UUID

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods, require_safe

from webapp.accounts.access import TeamRequest, get_visible, get_with_role
from webapp.datasets import fixes
from webapp.datasets.addresses import version_link
from webapp.datasets.frame import frame
from webapp.datasets.models import DatasetVersion
from webapp.datasets.overview import overview

FRAGMENT = "HX-Request"


@login_required
@require_safe
def version_findings(request: TeamRequest, pk: UUID) -> HttpResponse:
    version = get_visible(_versions(request), pk)
    if "brief" in request.GET:  # the overview asks again until the rows are looked through
        return render(request, "datasets/_overview_findings.html", {"version": version} | overview(version))
    ctx = frame(request.user, version, "findings") | {"found": fixes.findings_of(version)}
    page = "datasets/_findings.html" if FRAGMENT in request.headers else "datasets/findings.html"
    return render(request, page, ctx)


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def finding_fix(request: TeamRequest, pk: UUID, kind: str) -> HttpResponse:
    version = get_with_role(_versions(request).ready(), pk, request.user)
    if request.method == "POST":
        made = fixes.fix(user=request.user, version=version, name=kind, note=request.POST.get("note", ""))
        messages.success(request, f"Version {made.number} is being made.")
        return redirect(version_link(made))
    shown = fixes.preview(version, fixes.fixable(version, kind))
    ctx = frame(request.user, version, "findings") | {"preview": shown, "older": version}
    masks = shown.kind.fix == "mask"
    ctx |= {"page": {"kind": "edited" if masks else "removed", "marks": masks}}
    return render(request, "datasets/finding_fix.html", ctx)


def _versions(request: TeamRequest) -> Any:
    return DatasetVersion.objects.visible_to(request.user).select_related("dataset__team")
