"""Fragments that show what a base model sees of rows."""

from uuid import UUID

from django.contrib.auth.decorators import login_required
from django.http import HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from webapp.accounts.access import TeamRequest, get_with_role
from webapp.adapters.models import BaseModel
from webapp.adapters.seen import seen_by
from webapp.datasets import mapping
from webapp.datasets.models import DatasetVersion


@login_required
@require_safe
def mapping_tokens(request: TeamRequest, pk: UUID) -> HttpResponse:
    """The first rows of a file, read as the form of its columns says, as a ready base model sees them."""
    rows = DatasetVersion.objects.visible_to(request.user).select_related("dataset__team")
    version = get_with_role(rows, pk, request.user)
    bases = list(BaseModel.objects.ready())
    chosen = next((base for base in bases if str(base.pk) == request.GET.get("base")), bases[0] if bases else None)
    read = mapping.first_rows_as(version, mapping.asked_mapping(version, request.GET))
    good = [(one.number, one.content) for one in read if one.content]
    ctx = {"version": version, "bases": bases, "chosen": chosen, "seen": seen_by(chosen, good) if chosen else []}
    return render(request, "adapters/_mapping_tokens.html", ctx)
