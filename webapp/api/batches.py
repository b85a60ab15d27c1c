"""/v1/batches: files of requests, answered one after another in the background."""

from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID

from django.db import transaction
from django.http import HttpResponse, JsonResponse
from django.utils import timezone

from webapp.accounts.access import require_role
from webapp.accounts.models import Role
from webapp.api import batch_lifecycle, tasks
from webapp.api.auth import ApiRequest, require
from webapp.api.batch_run import ENDPOINTS
from webapp.api.fields import Fields, json_body
from webapp.api.file_form import read_seconds
from webapp.api.file_store import find_file
from webapp.api.models import ApiFile, Batch, BatchStatus
from webapp.api.names import BATCH, FILE, uuid_of, wire_id
from webapp.api.paging import asked, page_of
from webapp.api.wire import ApiError, listing, timestamp, timestamp_or_none

WINDOWS = {"24h": timedelta(hours=24)}
ENDED = {BatchStatus.COMPLETED: "completed_at", BatchStatus.FAILED: "failed_at",
         BatchStatus.CANCELLED: "cancelled_at", BatchStatus.EXPIRED: "expired_at"}  # fmt: skip

TOO_LATE = {
    BatchStatus.COMPLETED: "this batch has been completed",
    BatchStatus.FAILED: "this batch has failed",
    BatchStatus.EXPIRED: "this batch has expired",
    BatchStatus.FINALIZING: "all requests of this batch are answered, and its files are being written",
}


def create(request: ApiRequest) -> HttpResponse:
    require(request, Role.MEMBER)
    body = json_body(request)
    body.only("input_file_id", "endpoint", "completion_window", "metadata", "output_expires_after")
    endpoint = body.choice("endpoint", list(ENDPOINTS))
    window = WINDOWS[body.choice("completion_window", list(WINDOWS))]
    with transaction.atomic():
        batch = Batch.objects.create(
            team=request.team,
            created_by=request.user,
            endpoint=endpoint,
            input_file=_input(request, body),
            metadata=body.metadata(),
            output_seconds=read_seconds(body, "output_expires_after"),
            expires_at=timezone.now() + window,
        )
        transaction.on_commit(partial(tasks.ring, batch.pk))
    return JsonResponse(batch_object(batch))


def list_batches(request: ApiRequest) -> HttpResponse:
    rows = Batch.objects.filter(team=request.team)
    found, has_more = page_of(rows, asked(request), partial(uuid_of, prefix=BATCH))
    return listing([batch_object(batch) for batch in found], has_more=has_more)


def show(request: ApiRequest, batch: str) -> HttpResponse:
    return JsonResponse(batch_object(_found(request, batch)))


def cancel(request: ApiRequest, batch: str) -> HttpResponse:
    found = _found(request, batch)
    require_role(found.team, request.user, Role.MEMBER)
    if batch_lifecycle.cancel(found.pk):
        tasks.ring(found.pk)
    found.refresh_from_db()
    if why := TOO_LATE.get(BatchStatus(found.status)):
        raise ApiError(409, f"There is nothing left to cancel: {why}.", code="batch_ended")
    return JsonResponse(batch_object(found))


def _input(request: ApiRequest, body: Fields) -> ApiFile:
    text = body.text("input_file_id", most=100)
    file = find_file(request.user, uuid_of(text, FILE))
    if file is None:
        raise ApiError(404, f"There is no file `{text}`.", param="input_file_id", code="not_found")
    if not isinstance(file, ApiFile) or file.purpose != "batch" or file.team_id != request.team.pk:
        body.bad("input_file_id", "must be a file of this team with the purpose batch")
    return file


def _found(request: ApiRequest, batch: str) -> Batch:
    pk: UUID | None = uuid_of(batch, BATCH)
    found = Batch.objects.visible_to(request.user).select_related("team").filter(pk=pk).first() if pk else None
    if found is None:
        text = f"There is no batch `{batch[:100]}`, or your key may not see it."
        raise ApiError(404, text, param="batch_id", code="not_found")
    return found


def batch_object(batch: Batch) -> dict[str, Any]:
    """As the wire shows it."""
    ends: dict[str, int | None] = dict.fromkeys(ENDED.values())
    if batch.status in ENDED:
        ends[ENDED[BatchStatus(batch.status)]] = timestamp_or_none(batch.ended_at)
    return {
        "id": wire_id(BATCH, batch.pk),
        "object": "batch",
        "endpoint": batch.endpoint,
        "errors": {"object": "list", "data": batch.errors} if batch.errors else None,
        "input_file_id": wire_id(FILE, batch.input_file_id),
        "completion_window": "24h",
        "status": batch.status,
        "output_file_id": wire_id(FILE, batch.output_file_id) if batch.output_file_id else None,
        "error_file_id": wire_id(FILE, batch.error_file_id) if batch.error_file_id else None,
        "created_at": timestamp(batch.created_at),
        "in_progress_at": timestamp_or_none(batch.in_progress_at),
        "finalizing_at": timestamp_or_none(batch.finalizing_at),
        "cancelling_at": timestamp_or_none(batch.cancelling_at),
        "expires_at": timestamp(batch.expires_at),
        **ends,
        "request_counts": {"total": batch.total, "completed": batch.completed, "failed": batch.failed},
        "metadata": batch.metadata or None,
    }
