"""What a request says about a file: multipart forms of files and parts, and how long a file is to be kept."""

from dataclasses import dataclass

from django.core.files import File
from django.http import HttpRequest

from webapp.api.fields import Fields, bad
from webapp.api.file_store import PURPOSES
from webapp.api.wire import ApiError

ANCHORS = ("created_at",)
SHORTEST, LONGEST = 3600, 30 * 24 * 3600  # seconds that a file may be kept for


@dataclass(frozen=True)
class FileForm:
    """`seconds` is how long the file stays; None for ever."""

    purpose: str
    file: "File[bytes]"
    seconds: int | None


def read_file_form(request: HttpRequest) -> FileForm:
    file = read_part(request, "file", "purpose", "expires_after[anchor]", "expires_after[seconds]")
    sent = {name: value for name, value in request.POST.items() if "\x00" not in str(value)}
    purpose = Fields(dict(sent)).choice("purpose", PURPOSES)
    nested = {
        name: sent[f"expires_after[{name}]"] for name in ("anchor", "seconds") if f"expires_after[{name}]" in sent
    }
    if (seconds := str(nested.get("seconds", ""))).isdecimal() and len(seconds) < 12:
        nested["seconds"] = int(seconds)  # type: ignore[assignment]  # forms know only text
    return FileForm(purpose, file, read_seconds(Fields({"expires_after": nested or None})))


def read_part(request: HttpRequest, name: str, *beside: str) -> "File[bytes]":
    """The file of a multipart form; it lies on the disk, or in memory when it is small. `beside`: its other parts."""
    if request.content_type != "multipart/form-data":
        raise ApiError(415, "Send the file as multipart/form-data.", code="unsupported_content_type")
    file = request.FILES.get(name)
    if file is None:
        bad(name, f"`{name}` is missing: it must be a part of the form with a file name.", "missing_required_parameter")
    Fields(dict.fromkeys([*request.POST, *request.FILES], "")).only(name, *beside)
    return file


def read_seconds(fields: Fields, name: str = "expires_after") -> int | None:
    """From {"anchor": "created_at", "seconds": …}."""
    if not fields.has(name):
        return None
    rule = fields.inside(name)
    rule.only("anchor", "seconds")
    rule.choice("anchor", ANCHORS)
    return rule.whole("seconds", lowest=SHORTEST, highest=LONGEST)
