"""The pages of versions: what changed, an older state again, splits, and the end of a single version."""

from typing import Any
from uuid import UUID

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from webapp.accounts.access import TeamRequest, get_visible, get_with_role
from webapp.common.errors import UserError
from webapp.datasets import comparisons, diff, tasks, versions
from webapp.datasets.addresses import version_link
from webapp.datasets.frame import frame
from webapp.datasets.models import DatasetVersion
from webapp.datasets.splits import SplitForm, about_splits

FRAGMENT = "HX-Request"

MOST_OTHERS = 200  # to compare with, the newest; any other by its number in the address


@login_required
@require_safe
def version_diff(request: TeamRequest, pk: UUID) -> HttpResponse:
    """What changed up to this version, since its parent or the version asked for."""
    newer = get_visible(_versions(request).ready(), pk)
    others = newer.dataset.versions.ready().exclude(pk=newer.pk).only("number", "note")[:MOST_OTHERS]
    older = _asked(newer, request.GET.get("from", ""))
    ctx = frame(request.user, newer, "versions") | {"older": older, "others": others, "here": request.get_full_path()}
    if older and older.rows_path.is_file() and newer.rows_path.is_file():
        ctx |= _changes(older, newer, kind=request.GET.get("kind", ""), number=request.GET.get("page", ""))
    return render(request, "datasets/_changes.html" if FRAGMENT in request.headers else "datasets/diff.html", ctx)


def _changes(older: DatasetVersion, newer: DatasetVersion, *, kind: str, number: str) -> dict[str, Any]:
    """A page of what changed; a bell for a worker where that is not known yet."""
    told = comparisons.changes_of(older, newer)
    if told is None:
        if comparisons.kept_changes(older.pk, newer.pk).is_due():
            tasks.ring_for_comparison(older.pk, newer.pk)
        return {"comparing": True}
    if "failure" in told:
        return {"failure": told["failure"]}
    counts, page = diff.page_of(older, newer, told, kind=kind, number=number)
    return {"page": page, "kinds": [(one, label, counts[one]) for one, label in diff.KINDS.items()]}


def _asked(newer: DatasetVersion, number: str) -> DatasetVersion | None:
    """The version to compare with: the parent where none is named, or else the one before."""
    ready = newer.dataset.versions.ready().exclude(pk=newer.pk)
    if number:
        good = number.isascii() and number.isdigit() and len(number) < 9
        found = ready.filter(number=int(number)).first() if good else None
        if found is None:
            raise Http404
        return found
    return ready.filter(children=newer).first() or ready.filter(number__lt=newer.number).first()


@login_required
@require_POST
def version_restore(request: TeamRequest, pk: UUID) -> HttpResponse:
    version = get_with_role(_versions(request), pk, request.user)
    made = versions.restore(user=request.user, version=version, note=request.POST.get("note", ""))
    messages.success(request, f"Version {made.number} is version {version.number} again.")
    return redirect(version_link(made))


@login_required
@require_POST
def version_delete(request: TeamRequest, pk: UUID) -> HttpResponse:
    version = get_with_role(_versions(request), pk, request.user)
    versions.delete_version(user=request.user, version=version)
    messages.success(request, f"Version {version.number} was deleted.")
    return redirect(f"{reverse('dataset', args=[version.dataset_id])}?tab=versions")


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def split_new(request: TeamRequest, pk: UUID) -> HttpResponse:
    version = get_with_role(_versions(request), pk, request.user)
    sent = request.method == "POST"
    form = SplitForm(*((request.POST, request.FILES) if sent else ()), version=version, initial=_asked_before(request))
    if form.is_bound and form.is_valid():
        try:
            return redirect(version_link(_split(request, version, form)))
        except UserError as error:
            form.add_error("file" if form.plan["method"] == "file" else None, str(error))
    ctx = frame(request.user, version, "versions") | {"form": form} | about_splits(version)
    return render(request, "datasets/split.html", ctx, status=422 if form.is_bound else 200)


def _asked_before(request: TeamRequest) -> dict[str, str]:
    """What the form begins with, where a link says how."""
    return {name: request.GET[name] for name in ("method", "name") if name in request.GET}


def _split(request: TeamRequest, version: DatasetVersion, form: SplitForm) -> DatasetVersion:
    told: dict[str, Any] = {"user": request.user, "version": version, "note": form.told}
    if form.plan["method"] == "file":
        return versions.split_by_file(file=form.cleaned_data["file"], plan=form.plan, **told)
    return versions.revise(changes={"splits": form.plan}, **told)


def _versions(request: TeamRequest) -> Any:
    return DatasetVersion.objects.visible_to(request.user).select_related("dataset__team", "created_by")
