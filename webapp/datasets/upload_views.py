"""The pages that bring data in: files, pasted rows, another dataset, the hub."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any
from uuid import UUID

from django import forms
from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST

from webapp.accounts.access import TeamRequest, get_with_role, require_role
from webapp.accounts.models import Role
from webapp.common.errors import UserError
from webapp.datasets import services, uploads
from webapp.datasets.addresses import version_link
from webapp.datasets.forms import MOST_CHOICES, CopyForm, FileForm, HubForm, UploadForm, VersionForm
from webapp.datasets.listing import typed
from webapp.datasets.models import Dataset, DatasetVersion
from webapp.datasets.splits import divided

PART_BYTES = 8 * 1024 * 1024  # larger files go in parts, so that what breaks off goes on
WAYS = {"dataset_new": "Files", "dataset_copy": "Another dataset", "dataset_hub": "The hub"}


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def dataset_new(request: TeamRequest) -> HttpResponse:
    require_role(request.team, request.user, Role.MEMBER)
    given = (request.POST, request.FILES) if request.method == "POST" else ()
    form = UploadForm(*given, user=request.user)

    def save() -> str:
        made = uploads.make_datasets(user=request.user, team=request.team, groups=form.groups)
        if len(made) == 1:
            return reverse("dataset", args=[made[0].pk])
        messages.success(request, f"{len(made)} datasets are being checked.")
        return reverse("datasets")

    return _page(request, form, save, way="dataset_new")


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def dataset_version_new(request: TeamRequest, pk: UUID) -> HttpResponse:
    found = get_with_role(Dataset.objects.visible_to(request.user), pk, request.user)
    given = (request.POST, request.FILES) if request.method == "POST" else ()
    form = VersionForm(*given, user=request.user)

    def save() -> str:
        told = {"files": form.originals, "note": form.cleaned_data["note"]}
        return version_link(uploads.make_version(user=request.user, dataset=found, **told))

    return _page(request, form, save, way="dataset_new", dataset=found, held=divided(found))


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def dataset_copy(request: TeamRequest) -> HttpResponse:
    require_role(request.team, request.user, Role.MEMBER)
    q = typed(request.GET.get("q"))
    form = CopyForm(request.POST or None, user=request.user, q=q, initial={"version": request.GET.get("version")})

    def save() -> str:
        made = services.copy_version(user=request.user, team=request.team, **form.cleaned_data)
        return reverse("dataset", args=[made.pk])

    return _page(request, form, save, way="dataset_copy", q=q, most=MOST_CHOICES)


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def dataset_hub(request: TeamRequest) -> HttpResponse:
    require_role(request.team, request.user, Role.MEMBER)
    form = HubForm(request.POST or None, initial=request.GET.dict())

    def save() -> str:
        made = services.add_from_hub(user=request.user, team=request.team, **form.cleaned_data)
        return reverse("dataset", args=[made.pk])

    return _page(request, form, save, way="dataset_hub")


def _page(request: TeamRequest, form: forms.Form, save: Callable[[], str], **ctx: Any) -> HttpResponse:
    if answer := answer_form(request, form, save):
        return answer
    ctx |= {"form": form, "limit": settings.MAX_UPLOAD_BYTES, "part": PART_BYTES, "ways": WAYS}
    ctx |= {"unfinished": uploads.unfinished(request.user) if isinstance(form, FileForm) else []}
    return render(request, "datasets/upload.html", ctx, status=422 if form.is_bound else 200)


def answer_form(
    request: TeamRequest, form: forms.Form, save: Callable[[], str], fields: Mapping[str, str] = MappingProxyType({})
) -> HttpResponse | None:
    """Save what is good and go to `save`'s address; a script gets it, or the errors, as JSON. None: show the page.

    `fields`: of UserErrors by their code, the field that they are about.
    """
    by_script = request.headers.get("Accept") == "application/json"
    if form.is_bound and form.is_valid():
        try:
            place = save()
            return JsonResponse({"location": place}, status=201) if by_script else redirect(place)
        except UserError as error:
            form.add_error(fields.get(error.code), str(error))
    if form.is_bound and by_script:
        return JsonResponse({"errors": [text for texts in form.errors.values() for text in texts]}, status=422)
    return None


@login_required
@require_POST
def dataset_sample(request: TeamRequest) -> HttpResponse:
    require_role(request.team, request.user, Role.MEMBER)
    return redirect("dataset", services.add_sample_dataset(user=request.user, team=request.team).pk)


@login_required
@require_POST
def dataset_skip_bad_rows(request: TeamRequest, pk: UUID) -> HttpResponse:
    version = _to_change(request, pk)
    return redirect(version_link(services.skip_bad_rows(user=request.user, version=version)))


@login_required
@require_POST
def version_fetch_again(request: TeamRequest, pk: UUID) -> HttpResponse:
    version = _to_change(request, pk)
    return redirect(version_link(services.fetch_again(user=request.user, version=version)))


@login_required
@require_POST
def version_inspect_again(request: TeamRequest, pk: UUID) -> HttpResponse:
    version = _to_change(request, pk)
    return redirect(version_link(services.inspect_again(user=request.user, version=version)))


def _to_change(request: TeamRequest, pk: UUID) -> DatasetVersion:
    rows = DatasetVersion.objects.visible_to(request.user).select_related("dataset__team")
    version: DatasetVersion = get_with_role(rows, pk, request.user)
    return version
