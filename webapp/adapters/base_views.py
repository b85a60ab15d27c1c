"""Pages about base models: everyone sees them, the server's staff adds and removes them."""

from typing import Any
from uuid import UUID

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied
from django.db.models import Count
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from webapp.accounts.access import TeamRequest
from webapp.adapters import services
from webapp.adapters.forms import BaseForm
from webapp.adapters.models import Adapter, BaseModel
from webapp.adapters.plain_words import base_facts, short_count
from webapp.common.errors import UserError

FRAGMENT = "HX-Request"


def require_staff(request: TeamRequest) -> None:
    if not request.user.is_staff:
        raise PermissionDenied


@login_required
@require_safe
def base_models(request: TeamRequest) -> HttpResponse:
    rows = BaseModel.objects.annotate(adapter_count=Count("adapters"))
    bases = [(base, short_count(base.facts.get("parameters"))) for base in rows]
    ctx = {"bases": bases, "fetching": any(base.is_fetching for base in rows)}
    return render(request, "adapters/_bases.html" if FRAGMENT in request.headers else "adapters/bases.html", ctx)


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def base_add(request: TeamRequest) -> HttpResponse:
    require_staff(request)
    form = BaseForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            base = services.add_base(actor=request.user, request=request, **form.cleaned_data)
            return redirect("base_model", base.pk)
        except UserError as error:
            form.add_error("location", str(error))
    ctx = {"form": form, "roots": settings.BASES_ROOTS}
    return render(request, "adapters/base_add.html", ctx, status=422 if form.is_bound else 200)


@login_required
@require_safe
def base_model(request: TeamRequest, pk: UUID) -> HttpResponse:
    base = get_object_or_404(BaseModel, pk=pk)
    adapters = Adapter.objects.visible_to(request.user).listed_in(request.team).filter(base_model=base)
    ctx: dict[str, Any] = {"base": base, "facts": base_facts(base), "adapters": adapters}
    return render(request, "adapters/base.html", ctx)


@login_required
@require_safe
def base_status(request: TeamRequest, pk: UUID) -> HttpResponse:
    """How a fetch goes; when it is over, the page that asks loads again and shows what was found."""
    base = get_object_or_404(BaseModel, pk=pk)
    if FRAGMENT in request.headers and not base.is_fetching:
        return HttpResponse(headers={"HX-Refresh": "true"})
    return render(request, "adapters/_base_status.html", {"base": base})


@login_required
@require_POST
def base_retry(request: TeamRequest, pk: UUID) -> HttpResponse:
    require_staff(request)
    base = get_object_or_404(BaseModel, pk=pk)
    services.retry_fetch(base=base, actor=request.user, request=request)
    return redirect("base_model", base.pk)


@login_required
@require_POST
def base_delete(request: TeamRequest, pk: UUID) -> HttpResponse:
    require_staff(request)
    base = get_object_or_404(BaseModel, pk=pk)
    services.delete_base(base=base, actor=request.user, request=request)
    messages.success(request, f"{base.name} was removed.")
    return redirect("base_models")
