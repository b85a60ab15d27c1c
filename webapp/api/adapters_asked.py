"""What a request says that brings an adapter: its files, or one that was sent before, and what it is for."""

from django.core.files import File

from webapp.adapters.importing import Wish
from webapp.adapters.models import BaseModel
from webapp.api.auth import ApiRequest
from webapp.api.fields import Fields
from webapp.api.file_form import read_part
from webapp.api.file_store import find_file
from webapp.api.models import ApiFile
from webapp.api.names import FILE, find_model, uuid_of
from webapp.api.wire import ApiError
from webapp.datasets.storing import Original

LONGEST_NAME = 120
MOST_FILES = 20


def read_import(request: ApiRequest) -> tuple[Wish, list[Original]]:
    """From a multipart form of `file`, once or for each file, or `file_id`; `base_model` and `name` may be left out."""
    fields = Fields({name: value for name, value in request.POST.items() if value != ""})
    files: list[Original] = [_sent_before(request, fields)] if fields.has("file_id") else _sent_now(request, fields)
    name = fields.text("name", most=LONGEST_NAME).strip() if fields.has("name") else ""
    if not name.isprintable():
        fields.bad("name", "has characters that cannot be shown")
    base = _base(request, fields) if fields.has("base_model") else None
    return Wish(request.user, request.team, base=base, name=name), files


def _sent_now(request: ApiRequest, fields: Fields) -> list[Original]:
    read_part(request, "file", "base_model", "name", "file_id")
    files: list[Original] = list(request.FILES.getlist("file"))
    if len(files) > MOST_FILES:
        fields.bad("file", f"is there more than {MOST_FILES} times")
    return files


def _sent_before(request: ApiRequest, fields: Fields) -> Original:
    wire = fields.text("file_id")
    fields.only("file_id", "base_model", "name")
    if request.FILES:
        fields.bad("file_id", "cannot be sent together with `file`")
    found = find_file(request.user, uuid_of(wire, FILE))
    if not isinstance(found, ApiFile) or not found.path.is_file():
        text = f"There is no file `{wire[:100]}` that could be an adapter; send it with the purpose user_data."
        raise ApiError(404, text, param="file_id", code="not_found")
    return File(found.path.open("rb"), name=found.filename)


def _base(request: ApiRequest, fields: Fields) -> BaseModel:
    try:
        found = find_model(request.user, request.team, fields.text("base_model", most=1000))
    except ApiError as error:
        error.param = "base_model"
        raise
    if found.adapter is not None:
        fields.bad("base_model", "must be a base model, not an adapter")
    return found.base
