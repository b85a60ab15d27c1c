"""The pages of a draft: a row as its editor shows it, what was collected, and saving it as the next version."""

import json
from typing import Any
from uuid import UUID

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from trainer.formats.canonical import Content, Row
from trainer.formats.problems import BadRow, Problem
from trainer.formats.rows_file import rows_at
from trainer.formats.shapes import read_json, read_shape
from webapp.accounts.access import TeamRequest, get_with_role, require_role
from webapp.accounts.models import Role
from webapp.common.errors import UserError
from webapp.datasets import drafts
from webapp.datasets.addresses import came_from, version_link
from webapp.datasets.draft_changes import shown_changes
from webapp.datasets.draft_forms import EMPTY, DraftForm
from webapp.datasets.frame import frame
from webapp.datasets.models import DatasetVersion, DraftChange
from webapp.datasets.row_forms import RowsAtOnceForm


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def row_edit(request: TeamRequest, pk: UUID, number: int) -> HttpResponse:
    version = get_with_role(_ready(request), pk, request.user)
    row = _row(version, number)
    change = drafts.change_of_row(request.user, version, row.id)
    text = (change and change.shape) or json.dumps(row.shape(), ensure_ascii=False)

    def keep(content: Content) -> None:
        seen = request.POST.get("seen", "")
        drafts.edit_row(user=request.user, version=version, row=row, number=number, content=content, seen=seen)

    ctx = {"number": number, "change": change, "text": text, "seen": drafts.row_mark(change, row), "split": row.split}
    return _editor(request, version, keep, ctx)


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def row_add(request: TeamRequest, pk: UUID) -> HttpResponse:
    version = get_with_role(_ready(request), pk, request.user)

    def keep(content: Content) -> None:
        drafts.add_row(user=request.user, version=version, content=content)

    return _editor(request, version, keep, {"text": json.dumps(EMPTY[version.kind])})


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def draft_row(request: TeamRequest, pk: UUID) -> HttpResponse:
    """A row that is only in the draft."""
    change = get_object_or_404(DraftChange.objects.visible_to(request.user).select_related("version__dataset"), pk=pk)
    require_role(change.team, request.user, Role.MEMBER)
    if not change.shape:
        raise Http404

    def keep(content: Content) -> None:
        seen = request.POST.get("seen", "")
        drafts.edit_added(user=request.user, change=change, content=content, seen=seen)

    ctx = {"text": change.shape, "seen": drafts.row_mark(change), "change": change}
    return _editor(request, change.version, keep, ctx)


def _editor(request: TeamRequest, version: DatasetVersion, keep: Any, ctx: dict[str, Any]) -> HttpResponse:
    """The editor of a row; what is sent is kept when it could stand in a file, or shown again with what is wrong."""
    text, problem, status = ctx["text"], None, 200
    if request.method == "POST":
        text = request.POST.get("row", "")
        try:
            keep(read_shape(read_json(text), version.kind))  # type: ignore[arg-type]  # a report names one of the kinds
            messages.success(request, "Kept in your draft.")
            return redirect(_back(request, version))
        except BadRow as bad:
            problem, status = bad.found, 422
        except UserError as error:  # what was typed stays on the page
            problem, status = Problem("", error.text, error.fix), error.status
    shown = {
        "text": _indented(text),
        "problem": problem,
        "back": _back(request, version),
    }
    return render(request, "datasets/edit.html", frame(request.user, version, "rows") | ctx | shown, status=status)


@login_required
@require_POST
def draft_remove(request: TeamRequest, pk: UUID) -> HttpResponse:
    """Rows by their numbers."""
    version = get_with_role(_ready(request), pk, request.user)
    form = RowsAtOnceForm(request.POST)
    if not form.is_valid():
        messages.error(request, str(form.errors["number"][0]))
        return redirect(_back(request, version))
    rows = rows_at(version.rows_path, form.cleaned_data["number"])
    drafts.remove_numbered(user=request.user, version=version, rows=rows)
    messages.success(request, f"Your draft removes {len(rows)} row{'' if len(rows) == 1 else 's'}.")
    return redirect(_back(request, version))


@login_required
@require_safe
def draft(request: TeamRequest, pk: UUID) -> HttpResponse:
    return _draft_page(request, get_with_role(_ready(request), pk, request.user), DraftForm())


def _draft_page(request: TeamRequest, version: DatasetVersion, form: DraftForm, status: int = 200) -> HttpResponse:
    ctx = frame(request.user, version, "rows") | {"form": form}
    ctx["changes"] = shown_changes(version, drafts.changes_of(request.user, version))
    return render(request, "datasets/draft.html", ctx, status=status)


@login_required
@require_POST
def draft_save(request: TeamRequest, pk: UUID) -> HttpResponse:
    version = get_with_role(_ready(request), pk, request.user)
    form = DraftForm(request.POST)
    if not form.is_valid():
        return _draft_page(request, version, form, status=422)
    try:
        made = drafts.save(user=request.user, version=version, **form.cleaned_data)
    except UserError as error:  # the note stays on the page
        form.add_error(None, str(error))
        return _draft_page(request, version, form, status=error.status)
    messages.success(request, f"Saved as version {made.number}.")
    return redirect(version_link(made))


@login_required
@require_POST
def draft_discard(request: TeamRequest, pk: UUID) -> HttpResponse:
    version = get_with_role(_ready(request), pk, request.user)
    drafts.discard(user=request.user, version=version)
    messages.success(request, "Your draft was discarded.")
    return redirect(_back(request, version))


@login_required
@require_POST
def draft_undo(request: TeamRequest, pk: UUID) -> HttpResponse:
    change = get_object_or_404(DraftChange.objects.visible_to(request.user).select_related("version__dataset"), pk=pk)
    require_role(change.team, request.user, Role.MEMBER)
    drafts.undo(change)
    return redirect(_back(request, change.version))


def _ready(request: TeamRequest) -> Any:
    return DatasetVersion.objects.visible_to(request.user).ready().select_related("dataset__team")


def _row(version: DatasetVersion, number: int) -> Row:
    found = rows_at(version.rows_path, [number]).get(number) if version.rows_path.is_file() else None
    if found is None:
        raise Http404
    return found


def _indented(text: str) -> str:
    """JSON for people; text that is none as it is."""
    try:
        return json.dumps(json.loads(text), ensure_ascii=False, indent=2)
    except (ValueError, RecursionError):
        return text


def _back(request: TeamRequest, version: DatasetVersion) -> str:
    """Where the person came from, or else the page of the draft."""
    return came_from(request) or reverse("draft", args=[version.pk])
