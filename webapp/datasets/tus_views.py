"""The upload protocol tus 1.0 (https://tus.io/protocols/resumable-upload) for whoever is logged in."""

import base64
import binascii
from collections.abc import Callable
from functools import wraps
from typing import Any, cast
from uuid import UUID

from django.contrib.auth.decorators import login_required
from django.http import HttpResponse
from django.urls import reverse
from django.views.decorators.http import require_http_methods

from webapp.accounts.access import TeamRequest, get_visible
from webapp.common.errors import UserError
from webapp.datasets import uploads
from webapp.datasets.models import Upload
from webapp.datasets.uploads import Checksum

VERSION = "1.0.0"
ABOUT = {
    "Tus-Version": VERSION,
    "Tus-Extension": "creation,expiration,checksum,termination",
    "Tus-Checksum-Algorithm": ",".join(uploads.HASHES),
}
PART = "application/offset+octet-stream"
View = Callable[..., HttpResponse]


def tus(view: View) -> View:
    """Speaks version 1.0.0 alone, and says what goes wrong in one line."""

    @wraps(view)
    def speaking(request: TeamRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        if request.method != "OPTIONS" and request.headers.get("Tus-Resumable") != VERSION:
            response = _said(412, "This server speaks tus 1.0.0.")
        else:
            try:
                response = view(request, *args, **kwargs)
            except UserError as error:
                response = _said(error.status, str(error))
        told = {"Tus-Resumable": VERSION, "Cache-Control": "no-store"}
        if request.method == "OPTIONS" or response.status_code == 412:
            told |= ABOUT | {"Tus-Max-Size": str(uploads.limit())}
        for name, value in told.items():
            response[name] = value
        return response

    return cast(View, speaking)


@login_required
@require_http_methods(["OPTIONS", "POST"])
@tus
def upload_new(request: TeamRequest) -> HttpResponse:
    if request.method == "OPTIONS":
        return HttpResponse(status=204)
    size = _number(request.headers.get("Upload-Length", ""))
    if size is None:
        return _said(400, "Upload-Length must say how many bytes the file has.")
    told = _metadata(request.headers.get("Upload-Metadata", ""))
    if told is None:
        return _said(400, "Upload-Metadata must be pairs of a name and a value in base64.")
    name, fingerprint = told.get("filename", ""), told.get("fingerprint", "")
    made = uploads.begin(user=request.user, name=name, size=size, fingerprint=fingerprint)
    place = reverse("upload", args=[made.pk])
    return HttpResponse(status=201, headers={"Location": place, "Upload-Expires": uploads.expires(made)})


@login_required
@require_http_methods(["OPTIONS", "HEAD", "PATCH", "DELETE"])
@tus
def upload(request: TeamRequest, pk: UUID) -> HttpResponse:
    found = get_visible(Upload.objects.visible_to(request.user), pk)
    if request.method == "PATCH":
        return _take(request, found)
    if request.method == "DELETE":
        uploads.discard(found)
        return HttpResponse(status=204)
    if request.method == "OPTIONS":
        return HttpResponse(status=204)
    here = {"Upload-Offset": str(uploads.offset_of(found)), "Upload-Length": str(found.size)}
    return HttpResponse(headers=here | {"Upload-Expires": uploads.expires(found)})


def _take(request: TeamRequest, found: Upload) -> HttpResponse:
    if request.content_type != PART:
        return _said(415, f"A part is sent as {PART}.")
    offset = _number(request.headers.get("Upload-Offset", ""))
    if offset is None:
        return _said(400, "Upload-Offset must say where the part begins.")
    asked = request.headers.get("Upload-Checksum")
    checksum = _checksum(asked) if asked else None
    if asked and not checksum:
        return _said(400, f"Upload-Checksum must be one of {', '.join(uploads.HASHES)} and its value in base64.")
    end = uploads.take(found, offset=offset, body=request, checksum=checksum)
    found.refresh_from_db(fields=["touched_at"])
    return HttpResponse(status=204, headers={"Upload-Offset": str(end), "Upload-Expires": uploads.expires(found)})


def _said(status: int, text: str) -> HttpResponse:
    return HttpResponse(f"{text}\n", status=status, content_type="text/plain; charset=utf-8")


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


def _metadata(text: str) -> dict[str, str] | None:
    """`name value,name value`, each value in base64; a name may stand alone."""
    told = {}
    for pair in filter(None, (one.strip() for one in text.split(","))):
        name, _, value = pair.partition(" ")
        decoded = _decoded(value)
        if decoded is None:
            return None
        told[name] = decoded.decode(errors="replace")
    return told


def _checksum(text: str) -> Checksum | None:
    algorithm, _, value = text.partition(" ")
    digest = _decoded(value)
    return Checksum(algorithm, digest) if digest and algorithm in uploads.HASHES else None


def _decoded(text: str) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
