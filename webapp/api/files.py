"""/v1/files: what there is to train on, and what batches read and write."""

from datetime import timedelta

from django.http import HttpResponse, HttpResponseBase, JsonResponse
from django.utils import timezone

from webapp.accounts.access import require_role
from webapp.accounts.models import Role
from webapp.api.auth import ApiRequest, require
from webapp.api.file_form import read_file_form
from webapp.api.file_list import list_files as files_of
from webapp.api.file_store import AnyFile, content_of, create_file, delete_file, find_file
from webapp.api.file_wire import file_object
from webapp.api.names import FILE, uuid_of
from webapp.api.paging import asked
from webapp.api.wire import ApiError, deleted, from_user_error, listing
from webapp.common.errors import UserError
from webapp.common.http import attachment_response, in_threads

MOST_LISTED = 10_000


def list_files(request: ApiRequest) -> HttpResponse:
    page = asked(request, usual=MOST_LISTED, most=MOST_LISTED)
    found, has_more = files_of(request.team, page, request.GET.get("purpose", ""))
    return listing([file_object(file) for file in found], has_more=has_more)


def create(request: ApiRequest) -> HttpResponse:
    require(request, Role.MEMBER)
    form = read_file_form(request)
    expires_at = timezone.now() + timedelta(seconds=form.seconds) if form.seconds else None
    try:
        made = create_file(
            user=request.user, team=request.team, purpose=form.purpose, file=form.file, expires_at=expires_at
        )
    except UserError as error:
        raise from_user_error(error, param="file") from error
    return JsonResponse(file_object(made))


def show(request: ApiRequest, file: str) -> HttpResponse:
    return JsonResponse(file_object(_found(request, file)))


def content(request: ApiRequest, file: str) -> HttpResponseBase:
    found = _found(request, file)
    name = str(file_object(found)["filename"])
    return attachment_response(in_threads(content_of(found)), name=name, content_type="application/octet-stream")


def delete(request: ApiRequest, file: str) -> HttpResponse:
    found = _found(request, file)
    require_role(found.team, request.user, Role.MEMBER)
    try:
        delete_file(user=request.user, file=found)
    except UserError as error:
        raise from_user_error(error, param="file_id") from error
    return deleted(file, "file")


def _found(request: ApiRequest, file: str) -> AnyFile:
    found = find_file(request.user, uuid_of(file, FILE))
    if found is None:
        text = f"There is no file `{file[:100]}`, or your key may not see it."
        raise ApiError(404, text, param="file_id", code="not_found")
    return found
