"""/v1/adapters: the files of an adapter, which the wire's own addresses have no place for."""

from django.http import HttpResponseBase

from webapp.adapters.archive import archive_name, require_intact, zip_pieces
from webapp.api.auth import ApiRequest
from webapp.api.names import find_model, model_not_found
from webapp.common.http import attachment_response, in_threads


def content(request: ApiRequest, model: str) -> HttpResponseBase:
    """A zip with one folder that plain PEFT loads."""
    adapter = find_model(request.user, request.team, model).adapter
    if adapter is None:
        raise model_not_found(model)
    require_intact(adapter)
    name = archive_name(adapter)
    pieces = in_threads(zip_pieces(adapter.folder, name))
    return attachment_response(pieces, name=f"{name}.zip", content_type="application/zip")
