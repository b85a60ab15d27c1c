"""The pages of a file that was not understood, or not as meant: its columns, and its bad lines."""

from uuid import UUID

from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods, require_safe

from webapp.accounts.access import TeamRequest, get_visible, get_with_role
from webapp.common.errors import UserError
from webapp.common.http import attachment_response, in_threads
from webapp.common.storage import pieces_of_file
from webapp.datasets import mapping, mapping_turns
from webapp.datasets.addresses import version_link
from webapp.datasets.bad_lines import bad_lines_name, bad_lines_path, errors_of
from webapp.datasets.models import DatasetVersion
from webapp.datasets.splits import divided

FRAGMENT = "HX-Request"


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def dataset_mapping(request: TeamRequest, pk: UUID) -> HttpResponse:
    rows = DatasetVersion.objects.visible_to(request.user).select_related("dataset__team")
    version = get_with_role(rows, pk, request.user)
    asked = mapping.asked_mapping(version, request.POST if request.method == "POST" else request.GET)
    status, ctx = 200, {"version": version, "dataset": version.dataset, "columns": mapping.columns_of(version)}
    ctx["held"] = divided(version.dataset)
    if request.method == "POST":
        try:
            made = mapping.read_differently(user=request.user, version=version, mapping=asked)
            return redirect(version_link(made))
        except UserError as error:
            ctx["error"] = error
            status = error.status
    ctx |= {"mapping": asked, "kinds": mapping.KINDS, "targets": mapping.targets(version, asked)}
    ctx["turns"] = mapping_turns.shown(version, asked)
    ctx |= {"read": mapping.first_rows_as(version, asked), "hopeless": mapping.is_hopeless(version, asked)}
    ctx |= {"asked": "kind" in request.GET or "kind" in request.POST}
    template = "datasets/_mapping.html" if FRAGMENT in request.headers else "datasets/mapping.html"
    return render(request, template, ctx, status=status)


@login_required
@require_safe
def version_errors(request: TeamRequest, pk: UUID) -> HttpResponse:
    """The errors of one kind, or of all; a fragment of the dataset's page, and a page without scripts."""
    version = get_visible(DatasetVersion.objects.visible_to(request.user).select_related("dataset__team"), pk)
    ctx = {"version": version, "dataset": version.dataset, "report": version.report}
    ctx |= errors_of(version, request.GET.get("problem", ""))
    template = "datasets/_errors.html" if FRAGMENT in request.headers else "datasets/errors.html"
    return render(request, template, ctx)


@login_required
@require_safe
def version_bad_lines(request: TeamRequest, pk: UUID) -> HttpResponseBase:
    version = get_visible(DatasetVersion.objects.visible_to(request.user), pk)
    path = bad_lines_path(version)
    if not path.is_file():
        raise Http404
    pieces = in_threads(pieces_of_file(path))
    return attachment_response(pieces, name=bad_lines_name(version), content_type="application/jsonl")
