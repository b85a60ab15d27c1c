"""The page that imports an adapter."""

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_http_methods

from webapp.accounts.access import TeamRequest, require_role
from webapp.accounts.models import Role
from webapp.adapters.importing import Wish, import_adapter
from webapp.adapters.importing_form import ImportForm
from webapp.datasets import uploads
from webapp.datasets.upload_views import PART_BYTES, answer_form

FIELDS = {"import_base_unknown": "base", "base_not_ready": "base"}


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def adapter_import(request: TeamRequest) -> HttpResponse:
    require_role(request.team, request.user, Role.MEMBER)
    given = (request.POST, request.FILES) if request.method == "POST" else ()
    form = ImportForm(*given, user=request.user)
    if answer := answer_form(request, form, lambda: _save(request, form), FIELDS):
        return answer
    ctx = {"form": form, "limit": settings.MAX_UPLOAD_BYTES, "part": PART_BYTES}
    ctx["unfinished"] = uploads.unfinished(request.user)
    return render(request, "adapters/import.html", ctx, status=422 if form.is_bound else 200)


def _save(request: TeamRequest, form: ImportForm) -> str:
    """The address of the adapter, which may have been there before."""
    given = form.cleaned_data
    wish = Wish(request.user, request.team, base=given["base"], name=given["name"])
    made = import_adapter(wish, form.originals, request=request)
    if made.is_new:
        messages.success(request, f"{made.adapter.name} is imported: try it in the chat.")
    else:
        messages.info(request, f"The library has this adapter already, as {made.adapter.name}: it was not taken twice.")
    return made.adapter.get_absolute_url()
