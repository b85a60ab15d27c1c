"""/v1/uploads: a file in parts, for what is too large for one request."""

from typing import Any

from django.http import HttpResponse, JsonResponse

from webapp.accounts.access import require_role
from webapp.accounts.models import Role
from webapp.api import upload_store
from webapp.api.auth import ApiRequest, require
from webapp.api.fields import json_body
from webapp.api.file_form import read_part, read_seconds
from webapp.api.file_store import PURPOSES, AnyFile, find_file
from webapp.api.file_wire import file_object
from webapp.api.models import PartedUpload, UploadStatus
from webapp.api.names import PART, UPLOAD, uuid_of, wire_id
from webapp.api.wire import ApiError, from_user_error, timestamp
from webapp.common.errors import UserError

LARGEST = 2**53


def create(request: ApiRequest) -> HttpResponse:
    require(request, Role.MEMBER)
    fields = json_body(request)
    fields.only("filename", "purpose", "bytes", "mime_type", "expires_after")
    fields.text("mime_type", most=200)
    told = {"filename": fields.text("filename", most=255), "purpose": fields.choice("purpose", PURPOSES)}
    size, seconds = fields.whole("bytes", lowest=1, highest=LARGEST), read_seconds(fields)
    try:
        made = upload_store.begin(user=request.user, team=request.team, size=size, file_seconds=seconds, **told)
    except UserError as error:
        raise from_user_error(error, param="bytes") from error
    return JsonResponse(_upload_object(made))


def add_part(request: ApiRequest, upload: str) -> HttpResponse:
    found = _found(request, upload)
    part = upload_store.add_part(upload=found, file=read_part(request, "data"))
    facts = {"created_at": timestamp(part.created_at), "upload_id": wire_id(UPLOAD, found.pk)}
    return JsonResponse({"id": wire_id(PART, part.pk), "object": "upload.part", **facts})


def complete(request: ApiRequest, upload: str) -> HttpResponse:
    """Asked again after it was done, as a client does whose connection broke, the same answer."""
    found, fields = _visible(request, upload), json_body(request)
    fields.only("part_ids", "md5")
    if found.status == UploadStatus.COMPLETED:
        return JsonResponse(_upload_object(found, find_file(request.user, found.file_id)))
    _require_open(found)
    md5 = fields.text("md5", most=32) if fields.has("md5") else None
    made = upload_store.complete(user=request.user, upload=found, part_ids=fields.items("part_ids"), md5=md5)
    return JsonResponse(_upload_object(found, made))


def cancel(request: ApiRequest, upload: str) -> HttpResponse:
    found = _found(request, upload)
    upload_store.cancel(upload=found)
    found.refresh_from_db()
    return JsonResponse(_upload_object(found))


def _found(request: ApiRequest, upload: str) -> PartedUpload:
    found = _visible(request, upload)
    _require_open(found)
    return found


def _require_open(upload: PartedUpload) -> None:
    if upload_store.status_of(upload) != UploadStatus.PENDING:
        raise upload_store.not_open(upload)


def _visible(request: ApiRequest, upload: str) -> PartedUpload:
    pk = uuid_of(upload, UPLOAD)
    rows = PartedUpload.objects.visible_to(request.user).select_related("team")
    found = rows.filter(pk=pk).first() if pk else None
    if found is None:
        text = f"There is no upload `{upload[:100]}`, or your key may not see it."
        raise ApiError(404, text, param="upload_id", code="not_found")
    require_role(found.team, request.user, Role.MEMBER)
    return found


def _upload_object(upload: PartedUpload, file: AnyFile | None = None) -> dict[str, Any]:
    facts = {"bytes": upload.size, "filename": upload.filename, "purpose": upload.purpose}
    times = {"created_at": timestamp(upload.created_at), "expires_at": timestamp(upload.expires_at)}
    state = {"status": upload_store.status_of(upload), "file": file_object(file) if file else None}
    return {"id": wire_id(UPLOAD, upload.pk), "object": "upload", **facts, **times, **state}
