"""/v1/adapters: the files of adapters, out and in, which the wire's own addresses have no place for."""

from django.http import HttpResponse, HttpResponseBase, JsonResponse

from webapp.accounts.models import Role
from webapp.adapters.archive import archive_name, require_intact, zip_pieces
from webapp.adapters.importing import import_adapter
from webapp.api.adapters_asked import read_import
from webapp.api.adapters_wire import adapter_object
from webapp.api.auth import ApiRequest, require
from webapp.api.names import find_model, model_not_found
from webapp.api.wire import from_user_error
from webapp.common.errors import UserError
from webapp.common.http import attachment_response, in_threads

PARAMS = {"import_base_unknown": "base_model", "base_not_ready": "base_model", "base_missing": "base_model"}


def create(request: ApiRequest) -> HttpResponse:
    """An adapter of the team from files; the one that is there already when it has the same content."""
    require(request, Role.MEMBER)
    wish, files = read_import(request)
    try:
        made = import_adapter(wish, files, request=request)
    except UserError as error:
        raise from_user_error(error, param=PARAMS.get(error.code, "file")) from error
    return JsonResponse(adapter_object(made, request))


def content(request: ApiRequest, model: str) -> HttpResponseBase:
    """A zip with one folder that plain PEFT loads."""
    adapter = find_model(request.user, request.team, model).adapter
    if adapter is None:
        raise model_not_found(model)
    require_intact(adapter)
    name = archive_name(adapter)
    pieces = in_threads(zip_pieces(adapter.folder, name))
    return attachment_response(pieces, name=f"{name}.zip", content_type="application/zip")
