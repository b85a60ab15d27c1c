"""The page of what a base model sees of a version's rows, and the counts of its tokens."""

from typing import Any
from uuid import UUID

from django.contrib.auth.decorators import login_required
from django.http import HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from webapp.accounts.access import TeamRequest, get_visible
from webapp.adapters import tasks
from webapp.adapters.histograms import histogram
from webapp.adapters.models import BaseModel
from webapp.adapters.token_counts import counts_of, kept_counts, rows_over
from webapp.adapters.token_forms import VIEWS, SeenForm, link
from webapp.adapters.tokens import ROWS, seen_rows
from webapp.datasets.frame import frame
from webapp.datasets.models import DatasetVersion


@login_required
@require_safe
def version_seen(request: TeamRequest, pk: UUID) -> HttpResponse:
    version = get_visible(_versions(request), pk)
    given = SeenForm(request.GET).given
    ctx = frame(request.user, version, "seen") | {"given": given, "bases": BaseModel.objects.ready()}
    if given["base"] and version.is_ready and version.rows_path.is_file():
        ctx |= _rows(version, given) | _counted(version, given)
    return render(request, "datasets/seen.html", ctx)


@login_required
@require_safe
def version_tokens(request: TeamRequest, pk: UUID) -> HttpResponse:
    """The counts, asked for again and again until they are there."""
    version = get_visible(_versions(request).ready(), pk)
    given = SeenForm(request.GET).given
    ctx = {"version": version, "given": given} | (_counted(version, given) if given["base"] else {})
    return render(request, "datasets/_tokens.html", ctx)


def _rows(version: DatasetVersion, given: dict[str, Any]) -> dict[str, Any]:
    start = min(given["start"], max(1, version.row_count))
    seen = seen_rows(version, given["base"], start=start, train_on=given["train_on"], max_seq_length=given["length"])
    last = start + ROWS - 1
    return {
        "seen": seen,
        "views": [(name, label, link(given, view=name)) for name, label in VIEWS.items()],
        "previous": link(given, start=max(1, start - ROWS)) if start > 1 else "",
        "next": link(given, start=last + 1) if last < version.row_count else "",
        "first": start,
        "last": min(last, version.row_count),
    }


def _counted(version: DatasetVersion, given: dict[str, Any]) -> dict[str, Any]:
    """The counts as the page shows them; a bell for a worker where there are none."""
    base, length = given["base"], given["length"]
    counts = counts_of(version, base)
    if counts is None and kept_counts(version.pk, base.pk).is_due():
        tasks.ring_for_tokens(version.pk, base.pk)
    ctx: dict[str, Any] = {"counts": counts, "poll": link(given)}
    if not counts or "failure" in counts:
        return ctx
    shown = (
        histogram("Tokens of a row", "tokens", counts["tokens"], limit=length),
        histogram("Tokens that are learnt", "tokens", counts["answers"]),
        histogram("Answers in a row", "answers", counts["turns"]),
    )
    suggested = min(counts["suggested"], base.facts.get("context_length") or counts["suggested"])
    over = rows_over(counts, length)
    ctx |= {"histograms": [one for one in shown if one], "suggested": suggested, "over": over}
    return ctx | {"share": round(100 * counts["trained_share"]), "is_sample": counts["sampled"] < counts["rows"]}


def _versions(request: TeamRequest) -> Any:
    return DatasetVersion.objects.visible_to(request.user).select_related("dataset__team")
