"""Uploads in parts over the official client."""

import hashlib
from datetime import timedelta
from typing import Any

import openai
import pytest
from django.conf import settings
from django.utils import timezone
from openai import OpenAI

from tests.api.conftest import Connect
from tests.api.test_files import GOOD
from tests.cast import Cast
from webapp.api import upload_store
from webapp.api.expiry import remove_expired
from webapp.api.models import PartedUpload, UploadStatus
from webapp.common.errors import UserError
from webapp.datasets.models import DatasetVersion

HALF = len(GOOD) // 2


def begin(client: OpenAI, size: int = len(GOOD), **extra: Any) -> Any:
    told: dict[str, Any] = {"filename": "large.jsonl", "mime_type": "application/jsonl", "purpose": "fine-tune"}
    return client.uploads.create(bytes=size, **told | extra)


def test_parts_in_any_order_become_a_file(client: OpenAI, people: Cast) -> None:
    upload = begin(client)
    assert (upload.status, upload.bytes, upload.file) == ("pending", len(GOOD), None)
    assert upload.expires_at - upload.created_at == 3600
    second = client.uploads.parts.create(upload.id, data=GOOD[HALF:])
    first = client.uploads.parts.create(upload.id, data=GOOD[:HALF])
    assert (first.upload_id, first.object) == (upload.id, "upload.part")
    md5 = hashlib.md5(GOOD).hexdigest()
    done = client.uploads.complete(upload.id, part_ids=[first.id, second.id], md5=md5)
    assert done.status == "completed"
    assert done.file
    assert client.files.content(done.file.id).read() == GOOD
    assert DatasetVersion.objects.get().original_sha256 == hashlib.sha256(GOOD).hexdigest()
    assert not PartedUpload.objects.get().folder.exists()
    assert client.uploads.complete(upload.id, part_ids=[first.id, second.id]) == done  # after a broken connection


def test_the_clients_own_way_in_chunks(client: OpenAI, people: Cast) -> None:
    done = client.uploads.upload_file_chunked(
        file=GOOD, filename="chunks.bin", bytes=len(GOOD), mime_type="text/plain", purpose="batch", part_size=100
    )
    assert done.file
    assert client.files.content(done.file.id).read() == GOOD


def test_what_does_not_fit_together(client: OpenAI, people: Cast) -> None:
    upload = begin(client)
    first = client.uploads.parts.create(upload.id, data=GOOD[:HALF]).id
    second = client.uploads.parts.create(upload.id, data=GOOD[HALF:]).id
    for part_ids, md5, param in (
        ([first], None, "part_ids"),
        ([], None, "part_ids"),
        ([first, first], None, "part_ids"),
        ([first, "part_1"], None, "part_ids[1]"),
        ([second, first], hashlib.md5(GOOD).hexdigest(), "md5"),
    ):
        with pytest.raises(openai.BadRequestError) as caught:
            client.uploads.complete(upload.id, part_ids=part_ids, **({"md5": md5} if md5 else {}))  # type: ignore[arg-type]
        assert caught.value.param == param
    assert client.uploads.complete(upload.id, part_ids=[first, second]).status == "completed"


def test_more_than_was_announced(client: OpenAI, people: Cast) -> None:
    upload = begin(client, size=4)
    client.uploads.parts.create(upload.id, data=b"abcd")
    client.uploads.parts.create(upload.id, data=b"abcd")  # sent again
    with pytest.raises(openai.BadRequestError):
        client.uploads.parts.create(upload.id, data=b"a")


@pytest.mark.parametrize(
    ("extra", "param"),
    [
        ({"size": 0}, "bytes"),
        ({"size": "1"}, "bytes"),
        ({"purpose": "x"}, "purpose"),
        ({"filename": 1}, "filename"),
        ({"expires_after": {"anchor": "created_at", "seconds": 1.5}}, "expires_after.seconds"),
    ],
)
def test_a_bad_announcement_is_named(client: OpenAI, people: Cast, extra: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        begin(client, **extra)
    assert caught.value.param == param


def test_more_than_this_server_takes(client: OpenAI, people: Cast) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        begin(client, size=settings.MAX_UPLOAD_BYTES + 1)
    assert (caught.value.status_code, caught.value.param) == (413, "bytes")


def test_what_is_unfinished_is_bounded_for_a_person_and_a_team(client: OpenAI, connect: Connect, people: Cast) -> None:
    largest = settings.MAX_UPLOAD_BYTES
    open_ones = [begin(client, size=largest - 10) for _ in range(4)]
    begin(client, size=40)
    with pytest.raises(openai.RateLimitError, match="Your open uploads would have") as caught:
        begin(client, size=1)
    assert (caught.value.code, caught.value.response.headers["x-should-retry"]) == ("too_many_uploads", "false")
    begin(connect("alice"), size=largest)
    PartedUpload.objects.filter(created_by=people.alice).update(size=13 * largest - 20)
    client.uploads.cancel(open_ones[0].id)
    with pytest.raises(openai.RateLimitError, match="Your team's open uploads"):
        begin(client, size=11)
    begin(client, size=10)
    PartedUpload.objects.update(expires_at=timezone.now())
    begin(client, size=largest)


def test_a_full_disk_is_said_before_the_first_part(people: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    told = {"filename": "a", "purpose": "batch", "file_seconds": None}
    monkeypatch.setattr(upload_store, "ROOM_KEPT", 2**60)
    with pytest.raises(UserError) as caught:
        upload_store.begin(user=people.bob, team=people.team, size=1, **told)  # type: ignore[arg-type]
    assert caught.value.code == "upload_no_room"
    assert not PartedUpload.objects.exists()


def test_a_cancelled_upload_takes_nothing_more(client: OpenAI, people: Cast) -> None:
    upload = begin(client)
    part = client.uploads.parts.create(upload.id, data=GOOD)
    assert client.uploads.cancel(upload.id).status == "cancelled"
    for ask in (
        lambda: client.uploads.parts.create(upload.id, data=GOOD),
        lambda: client.uploads.complete(upload.id, part_ids=[part.id]),
        lambda: client.uploads.cancel(upload.id),
    ):
        with pytest.raises(openai.BadRequestError) as caught:
            ask()
        assert "cancelled" in caught.value.message
    assert not PartedUpload.objects.get().folder.exists()


def test_an_upload_expires(client: OpenAI, people: Cast) -> None:
    upload = begin(client)
    client.uploads.parts.create(upload.id, data=GOOD)
    PartedUpload.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    with pytest.raises(openai.BadRequestError) as caught:
        client.uploads.parts.create(upload.id, data=GOOD)
    assert "expired" in caught.value.message
    assert remove_expired() == 1
    left = PartedUpload.objects.get()
    assert (left.status, left.folder.exists()) == (UploadStatus.EXPIRED, False)


def test_uploads_of_others(client: OpenAI, connect: Connect, people: Cast) -> None:
    upload = begin(client)
    with pytest.raises(openai.NotFoundError):
        connect("charlie").uploads.parts.create(upload.id, data=b"x")
    for ask in (lambda: begin(connect("vera")), lambda: connect("vera").uploads.cancel(upload.id)):
        with pytest.raises(openai.PermissionDeniedError):
            ask()
