"""The pages of datasets: list, and one dataset with its versions."""

from typing import Any
from uuid import UUID

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpResponse, HttpResponseBase
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_POST, require_safe

from webapp.accounts.access import TeamRequest, get_visible, get_with_role, has_role
from webapp.common.http import attachment_response, in_threads
from webapp.datasets import services
from webapp.datasets.addresses import came_from
from webapp.datasets.bad_lines import errors_of
from webapp.datasets.forms import NameForm
from webapp.datasets.frame import PAGES, TABS, frame
from webapp.datasets.listing import datasets_of, typed, versions_of
from webapp.datasets.mapping import columns_of
from webapp.datasets.models import Dataset, DatasetVersion
from webapp.datasets.overview import overview
from webapp.datasets.preview import checked_percent, first_rows, read_as, state_sentence
from webapp.datasets.splits import about_splits

FRAGMENT = "HX-Request"


@login_required
@require_safe
def datasets(request: TeamRequest) -> HttpResponse:
    listing = datasets_of(request.team, q=typed(request.GET.get("q")), number=request.GET.get("page"))
    pending = any(version.is_pending for version, _ in listing.page)
    ctx = {"listing": listing, "pending": pending, "can_change": has_role(request.team, request.user)}
    return render(request, "datasets/_table.html" if FRAGMENT in request.headers else "datasets/list.html", ctx)


@login_required
@require_safe
def dataset(request: TeamRequest, pk: UUID) -> HttpResponse:
    found = get_visible(Dataset.objects.visible_to(request.user).select_related("team"), pk)
    version = _asked_version(found, request.GET.get("version"))
    if FRAGMENT in request.headers:
        return _refresh(request, version)
    tab = request.GET.get("tab", "")
    if tab in PAGES:
        return redirect(PAGES[tab], version.pk)
    tab = tab if tab in TABS else "overview"
    return render(request, "datasets/detail.html", frame(request.user, version, tab) | _tab(request, version, tab))


def _refresh(request: TeamRequest, version: DatasetVersion) -> HttpResponse:
    """What the page asks for while an inspection runs; when that is over the whole page loads again."""
    if version.is_pending:
        ctx = {"version": version, "sentence": state_sentence(version), "percent": checked_percent(version)}
        return render(request, "datasets/_inspecting.html", ctx)
    return HttpResponse(headers={"HX-Refresh": "true"})


def _tab(request: TeamRequest, version: DatasetVersion, tab: str) -> dict[str, Any]:
    """What the open tab shows."""
    if tab == "versions":
        q, number = typed(request.GET.get("q")), request.GET.get("page")
        first = version.dataset.versions.order_by("number").values_list("number", flat=True)[0]
        listing = versions_of(version.dataset, version, q=q, number=number)
        return {"listing": listing, "first_number": first, "kept": {"version": version.number, "tab": "versions"}}
    if tab == "overview":
        ctx = errors_of(version, request.GET.get("problem", "")) | about_splits(version)
        ctx |= {"read_as": read_as(version.report), "columns": columns_of(version)}
        shown = overview(version) | {"rows": first_rows(version)} if version.is_ready else {}
        return ctx | shown
    return {}


@login_required
@require_safe
def dataset_download(request: TeamRequest, pk: UUID) -> HttpResponseBase:
    version = get_visible(DatasetVersion.objects.visible_to(request.user).ready(), pk)
    if not version.rows_path.is_file():
        raise Http404
    pieces = in_threads(services.rows_as_jsonl(version))
    return attachment_response(pieces, name=version.download_name, content_type="application/jsonl")


@login_required
@require_POST
def dataset_rename(request: TeamRequest, pk: UUID) -> HttpResponse:
    found = get_with_role(Dataset.objects.visible_to(request.user), pk, request.user)
    form = NameForm(request.POST)
    if form.is_valid():
        services.rename_dataset(user=request.user, dataset=found, name=form.cleaned_data["name"])
    else:
        messages.error(request, f"The name stays: {form.errors['name'][0]}")
    return redirect(came_from(request) or reverse("dataset", args=[pk]))


@login_required
@require_POST
def dataset_delete(request: TeamRequest, pk: UUID) -> HttpResponse:
    found = get_with_role(Dataset.objects.visible_to(request.user), pk, request.user)
    services.delete_dataset(user=request.user, dataset=found)
    messages.success(request, f"{found.name} was deleted.")
    return redirect("datasets")


def _asked_version(found: Dataset, number: str | None) -> DatasetVersion:
    """The version with this number, the newest without one; 404 when there is none."""
    if number is None:
        version = found.newest
    else:
        good = number.isascii() and number.isdigit() and len(number) < 9
        version = found.versions.filter(number=int(number)).first() if good else None
    if version is None:
        raise Http404
    return version
