"""`Idempotency-Key`: a request that is sent twice is carried out once, and gets the same answer for a day."""

import hashlib
from collections.abc import Callable
from contextlib import nullcontext
from datetime import timedelta
from typing import cast

from django.core.files import File
from django.db import IntegrityError, transaction
from django.http import HttpResponse, HttpResponseBase
from django.utils import timezone

from webapp.api.auth import ApiRequest
from webapp.api.fields import bad
from webapp.api.models import KeptAnswer
from webapp.api.wire import ApiError

HEADER = "Idempotency-Key"
KEPT = timedelta(days=1)
ABANDONED = timedelta(minutes=15)  # a request that has no answer by then was killed
LONGEST = 255

Carry = Callable[[], HttpResponseBase]


def once(request: ApiRequest, carry_out: Carry) -> HttpResponseBase:
    """Carry the request out, unless one of this name was: then its answer again. Only answers below 300 are kept."""
    name = request.headers.get(HEADER, "")
    if not name or request.method != "POST":
        return carry_out()
    if len(name) > LONGEST or not name.isprintable():
        bad(HEADER, f"`{HEADER}` must have at most {LONGEST} characters.")
    asked = fingerprint(request)
    mine = _take(request, name, asked)
    return _carried_out(request, mine, carry_out) if mine else _earlier(request, name, asked)


def _take(request: ApiRequest, name: str, asked: str) -> KeptAnswer | None:
    """The name, for this request to answer; None when another request has it."""
    same = KeptAnswer.objects.filter(key=request.key, name=name)
    now = timezone.now()
    same.filter(created_at__lt=now - KEPT).delete()
    same.filter(status=None, created_at__lt=now - ABANDONED).delete()
    try:
        with transaction.atomic():
            return KeptAnswer.objects.create(key=request.key, name=name, fingerprint=asked)
    except IntegrityError:
        return None


def _earlier(request: ApiRequest, name: str, asked: str) -> HttpResponse:
    """The answer that was given under this name."""
    kept = KeptAnswer.objects.filter(key=request.key, name=name).first()
    if kept and kept.fingerprint != asked:
        text = f"Another request was sent with this `{HEADER}`. Use a new one for each request."
        raise ApiError(422, text, param=HEADER, code="idempotency_key_reused")
    if kept is None or kept.status is None:
        text = "The same request is being carried out right now. Ask again for its answer."
        raise ApiError(409, text, param=HEADER, code="request_in_progress", retry=True, retry_after=1)
    again = HttpResponse(kept.body, status=kept.status, content_type="application/json")
    again["idempotent-replayed"] = "true"
    return again


def _carried_out(request: ApiRequest, mine: KeptAnswer, carry_out: Carry) -> HttpResponseBase:
    """What is made and the answer that tells of it, in one transaction. A form's files are large and are stored first:
    nobody else could write meanwhile."""
    answered = False
    is_form = request.content_type == "multipart/form-data"
    try:
        with nullcontext() if is_form else transaction.atomic():
            response = carry_out()
            if isinstance(response, HttpResponse) and response.status_code < 300:
                answer = {"status": response.status_code, "body": response.content.decode()}
                answered = bool(KeptAnswer.objects.filter(pk=mine.pk).update(**answer))
        return response
    finally:
        if not answered:
            KeptAnswer.objects.filter(pk=mine.pk).delete()


def fingerprint(request: ApiRequest) -> str:
    """A hash of all that was asked: the address, the team, the body, and the files of a form."""
    digest = hashlib.sha256(f"{request.path} {request.team.pk}".encode())
    if request.content_type != "multipart/form-data":
        digest.update(request.body)
        return digest.hexdigest()
    for field, value in sorted(request.POST.items()):
        digest.update(f"\0{field}\0{value}".encode("utf-8", "replace"))
    files = cast("dict[str, list[File[bytes]]]", dict(request.FILES.lists()))
    for field, file in ((field, file) for field, several in sorted(files.items()) for file in several):
        digest.update(f"\0{field}\0{file.name}\0".encode("utf-8", "replace"))
        for chunk in file.chunks():
            digest.update(chunk)
        file.seek(0)
    return digest.hexdigest()
