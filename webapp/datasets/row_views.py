"""The pages of rows: the table, one row, marks, and files for use elsewhere."""

from dataclasses import replace
from typing import Any
from uuid import UUID

from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpResponse, HttpResponseBase
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_POST, require_safe

from trainer.formats.rows_file import rows_at
from webapp.accounts.access import TeamRequest, get_visible, get_with_role, has_role
from webapp.common.http import attachment_response, in_threads
from webapp.datasets import drafts, export, fixes, row_marks
from webapp.datasets.addresses import came_from
from webapp.datasets.frame import frame
from webapp.datasets.models import DatasetVersion
from webapp.datasets.preview import MOST_COPIED, shown_row
from webapp.datasets.row_forms import SIZES, MarksForm, RowsForm
from webapp.datasets.search import ANY_FINDING
from webapp.datasets.table import FINDING_NAMES, Address, table_of, values_of

FRAGMENT = "HX-Request"


@login_required
@require_safe
def dataset_rows(request: TeamRequest, pk: UUID) -> HttpResponse:
    version = get_visible(_versions(request), pk)
    given = RowsForm(request.GET).given
    ctx = _common(request, version) | {"given": given}
    if version.is_ready and version.rows_path.is_file():
        table = table_of(version, given)
        states = drafts.states(request.user, version, [line.id for line in table.rows])
        table.rows = [replace(line, draft=states.get(line.id, "")) for line in table.rows]
        ctx |= {"table": table, **_choices(version, given)}
        if number := given.get("row"):
            ctx |= _opened(request, version, number)
    if FRAGMENT in request.headers:
        return render(request, "datasets/_rows_tab.html", ctx)
    return render(request, "datasets/rows.html", frame(request.user, version, "rows") | ctx)


@login_required
@require_safe
def row(request: TeamRequest, pk: UUID, number: int) -> HttpResponse:
    version = get_visible(_versions(request).ready(), pk)
    ctx = _common(request, version) | _opened(request, version, number)
    if "opened" not in ctx:
        raise Http404
    if FRAGMENT in request.headers:  # beside the table, where one comes back to
        beside = Address(RowsForm(request.GET).given).link(row=number)
        ctx["back"] = f"{reverse('dataset_rows', args=[pk])}{beside}"
        return render(request, "datasets/_row_panel.html", ctx)
    return render(request, "datasets/row.html", frame(request.user, version, "rows") | ctx)


@login_required
@require_POST
def row_marks_change(request: TeamRequest, pk: UUID) -> HttpResponse:
    version = get_with_role(_versions(request).ready(), pk, request.user)
    form = MarksForm(request.POST)
    if form.is_valid():
        rows = rows_at(version.rows_path, form.cleaned_data["number"])
        ids = [one.id for one in rows.values()]
        row_marks.change_marks(user=request.user, dataset=version.dataset, row_ids=ids, change=form.change)
    if FRAGMENT in request.headers:
        return HttpResponse(status=204 if form.is_valid() else 422)
    return redirect(came_from(request) or reverse("dataset_rows", args=[pk]))


@login_required
@require_safe
def version_export(request: TeamRequest, pk: UUID) -> HttpResponseBase:
    version = get_visible(_versions(request).ready(), pk)
    given = RowsForm(request.GET).given
    layout = export.layout_of(version, request.GET.get("layout", ""))
    if layout is None or not version.rows_path.is_file():
        raise Http404
    pieces = in_threads(export.pieces_of(version, layout, given))
    name = export.file_name(version, layout, found=bool(Address(given).filters))
    return attachment_response(pieces, name=name, content_type=export.content_type(layout))


@login_required
@require_safe
def version_export_losses(request: TeamRequest, pk: UUID) -> HttpResponse:
    """How many rows each layout leaves out, asked for when the list of layouts is opened."""
    version = get_visible(_versions(request).ready(), pk)
    if not version.rows_path.is_file():
        raise Http404
    losses = export.losses_of(version, RowsForm(request.GET).given)
    return render(request, "datasets/_export_losses.html", {"losses": losses})


def _common(request: TeamRequest, version: DatasetVersion) -> dict[str, Any]:
    return {"version": version, "can_change": has_role(version.team, request.user), "back": request.get_full_path()}


def _versions(request: TeamRequest) -> Any:
    return DatasetVersion.objects.visible_to(request.user).select_related("dataset__team")


def _choices(version: DatasetVersion, given: dict[str, Any]) -> dict[str, Any]:
    """What there is to choose from above the table."""
    counted = version.survey_report
    address = Address(given)
    findings = counted.get("findings", {})
    names = {kind: FINDING_NAMES.get(kind, kind.replace("_", " ")) for kind in findings}
    return {
        "findings": {ANY_FINDING: FINDING_NAMES[ANY_FINDING], **names} if findings else {},
        "roles": counted.get("roles", {}),
        "splits": counted.get("splits", {}),
        "scripts": [script for script in counted.get("scripts", {}) if script],
        "values": (values := values_of(version)),
        "column_listed": any(given.get("column") == one for held in values.values() for one, _, _ in held),
        "tags": row_marks.tag_names(version.dataset),
        "sizes": [(size, address.link(size=size)) for size in SIZES],
        "layouts": [(one, address.link(layout=one.name)) for one in export.layouts(version)],
        "is_filtered": bool(address.filters),
        "found_rows": address.link(),
        "everything": Address({}).link(size=given.get("size")),
    }


def _opened(request: TeamRequest, version: DatasetVersion, number: int) -> dict[str, Any]:
    """One row with what the panel shows of it; nothing when there is no such row."""
    address = Address(RowsForm(request.GET).given)
    found = rows_at(version.rows_path, [number]).get(number) if version.rows_path.is_file() else None
    if found is None:
        return {}
    beside = {"before": number - 1 or None, "after": number + 1 if number < version.row_count else None}
    links = {name: address.link(row=place) if place else "" for name, place in beside.items()}
    marks = row_marks.marks_of(version.dataset, [found.id])[found.id]
    opened = {
        "opened": shown_row(found, number, MOST_COPIED),
        "row_id": found.id,
        "marks": marks,
        "told": fixes.told_of_row(version, number),
        "split": found.split or "",
    }
    opened["in_draft"] = drafts.states(request.user, version, [found.id]).get(found.id, "")
    return opened | beside | {f"{name}_link": link for name, link in links.items()} | {"close": address.link(row=None)}
