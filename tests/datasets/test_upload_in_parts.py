"""Uploading in parts by tus 1.0: begun, broken off, continued from where it stood, and made into a dataset."""

import base64
import fcntl
import hashlib
import os
import zipfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.conf import settings as django_settings
from django.http import HttpResponse
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from tests.cast import Cast
from tests.make import make_dataset
from webapp.datasets.models import Dataset, Upload
from webapp.system.cleaning import clean_up

ROWS = b'{"instruction": "Who are you?", "output": "I am Lowrank."}\n' * 3
TUS = {"Tus-Resumable": "1.0.0"}


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def begin(client: Client, size: int | str = len(ROWS), name: str = "my_rows.jsonl", **headers: str) -> HttpResponse:
    told = TUS | {"Upload-Length": str(size), "Upload-Metadata": f"filename {encoded(name)}"} | headers
    return client.post(reverse("upload_new"), headers=told)


def part(client: Client, place: str, offset: int | str, data: bytes, **headers: str) -> HttpResponse:
    told = TUS | {"Upload-Offset": str(offset)} | headers
    return client.patch(place, data, content_type="application/offset+octet-stream", headers=told)


def offset(client: Client, place: str) -> int:
    return int(client.head(place, headers=TUS)["Upload-Offset"])


@pytest.fixture
def bob(cast: Cast) -> Client:
    return cast.client("bob")


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    yield
    for path in (Path(django_settings.FILES_DIR) / "uploads").glob("*"):
        path.unlink()


def sent(client: Client, data: bytes = ROWS, name: str = "my_rows.jsonl") -> str:
    """The id of an upload that is whole."""
    place = begin(client, len(data), name)["Location"]
    assert part(client, place, 0, data).status_code == 204
    return place.split("/")[-2]


def test_server_says_what_it_speaks(bob: Client) -> None:
    answer = bob.options(reverse("upload_new"))
    assert answer.status_code == 204
    assert (answer["Tus-Resumable"], answer["Tus-Version"]) == ("1.0.0", "1.0.0")
    assert set(answer["Tus-Extension"].split(",")) == {"creation", "expiration", "checksum", "termination"}
    assert int(answer["Tus-Max-Size"]) == django_settings.MAX_UPLOAD_BYTES


@pytest.mark.parametrize("told", [{}, {"Tus-Resumable": "0.2.2"}])
def test_other_versions_are_told_ours(bob: Client, told: dict[str, str]) -> None:
    answer = bob.post(reverse("upload_new"), headers={"Upload-Length": "5"} | told)
    assert (answer.status_code, answer["Tus-Version"]) == (412, "1.0.0")
    assert not Upload.objects.exists()


def test_file_arrives_in_parts_and_becomes_a_dataset(
    cast: Cast, bob: Client, django_capture_on_commit_callbacks: Any
) -> None:
    made = begin(bob)
    place = made["Location"]
    assert (made.status_code, offset(bob, place)) == (201, 0)
    assert made["Upload-Expires"].endswith("GMT")
    assert part(bob, place, 0, ROWS[:50])["Upload-Offset"] == "50"
    assert offset(bob, place) == 50
    assert part(bob, place, 50, ROWS[50:])["Upload-Offset"] == str(len(ROWS))
    with django_capture_on_commit_callbacks(execute=True):
        answer = bob.post(reverse("dataset_new"), {"upload": place.split("/")[-2]})
    dataset = Dataset.objects.get()
    version = dataset.versions.get()
    assert answer["Location"] == reverse("dataset", args=[dataset.pk])
    assert (dataset.name, version.original_name, version.size) == ("my rows", "my_rows.jsonl", len(ROWS))
    assert version.original_sha256 == hashlib.sha256(ROWS).hexdigest()
    assert version.original_path.read_bytes() == ROWS
    assert not Upload.objects.exists()
    assert not list((Path(django_settings.FILES_DIR) / "uploads").iterdir())


@pytest.mark.parametrize(
    ("at", "data", "status"),
    [(1, b"x", 409), (10_000, b"x", 409), (0, ROWS + b"x", 413), ("", b"x", 400), ("-1", b"x", 400)],
)
def test_part_that_does_not_join_changes_nothing(bob: Client, at: Any, data: bytes, status: int) -> None:
    place = begin(bob)["Location"]
    assert part(bob, place, at, data).status_code == status
    assert offset(bob, place) == 0


def test_part_needs_its_type(bob: Client) -> None:
    place = begin(bob)["Location"]
    answer = bob.patch(place, b"x", content_type="text/plain", headers=TUS | {"Upload-Offset": "0"})
    assert (answer.status_code, offset(bob, place)) == (415, 0)


def test_two_writers_at_once_are_refused(bob: Client) -> None:
    place = begin(bob)["Location"]
    with Upload.objects.get().path.open("r+b") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert part(bob, place, 0, ROWS).status_code == 423
        assert bob.delete(place, headers=TUS).status_code == 423
    assert part(bob, place, 0, ROWS).status_code == 204


@pytest.mark.parametrize("algorithm", ["sha1", "sha256"])
def test_damaged_part_is_not_kept(bob: Client, algorithm: str) -> None:
    place = begin(bob)["Location"]
    good = base64.b64encode(hashlib.new(algorithm, ROWS).digest()).decode()
    assert part(bob, place, 0, b"x" * len(ROWS), **{"Upload-Checksum": f"{algorithm} {good}"}).status_code == 460
    assert offset(bob, place) == 0
    assert part(bob, place, 0, ROWS, **{"Upload-Checksum": f"{algorithm} {good}"}).status_code == 204


@pytest.mark.parametrize("checksum", ["md5 AAAA", "sha1", "sha1 ###", "x"])
def test_checksums_we_cannot_read_are_refused(bob: Client, checksum: str) -> None:
    place = begin(bob)["Location"]
    assert part(bob, place, 0, ROWS, **{"Upload-Checksum": checksum}).status_code == 400
    assert offset(bob, place) == 0


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Upload-Length": "0"}, 400),
        ({"Upload-Length": "1001"}, 413),
        ({"Upload-Length": "9" * 30}, 400),
        ({"Upload-Length": "-5"}, 400),
        ({"Upload-Length": "x"}, 400),
        ({"Upload-Metadata": "filename ###"}, 400),
    ],
)
def test_uploads_that_cannot_be_begun(bob: Client, settings: Any, headers: dict[str, str], status: int) -> None:
    settings.MAX_UPLOAD_BYTES = 1000
    assert begin(bob, **headers).status_code == status
    assert not Upload.objects.exists()


def test_one_person_begins_so_many_at_most(bob: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("webapp.datasets.uploads.MOST_AT_ONCE", 2)
    assert [begin(bob).status_code for _ in range(3)] == [201, 201, 429]


def test_full_disk_is_said_before_anything_is_sent(bob: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("webapp.datasets.uploads.ROOM_KEPT", 10**18)
    assert begin(bob).status_code == 507


def test_ending_one_leaves_nothing(bob: Client) -> None:
    place = begin(bob)["Location"]
    path = Upload.objects.get().path
    part(bob, place, 0, ROWS[:10])
    assert bob.delete(place, headers=TUS).status_code == 204
    assert not path.exists()
    assert bob.head(place, headers=TUS).status_code == 404


@pytest.mark.parametrize("who", ["alice", "vera", "charlie"])
def test_nobody_else_has_it(cast: Cast, bob: Client, who: str) -> None:
    """Nor their team's owner: it is not a dataset yet."""
    place = begin(bob)["Location"]
    other = cast.client(who)
    assert other.head(place, headers=TUS).status_code == 404
    assert part(other, place, 0, ROWS).status_code == 404
    assert other.delete(place, headers=TUS).status_code == 404
    assert offset(bob, place) == 0


def test_foreign_uploads_make_no_dataset(cast: Cast, bob: Client) -> None:
    mine = sent(cast.client("alice"))
    answer = bob.post(reverse("dataset_new"), {"upload": mine})
    assert answer.status_code == 422
    text = answer.content.decode()
    assert "no longer here" in text
    assert "data-upload-errors hidden" not in text, "it is to be seen without scripts too"
    assert not Dataset.objects.exists()


def test_half_a_file_makes_no_dataset(bob: Client) -> None:
    place = begin(bob)["Location"]
    part(bob, place, 0, ROWS[:20])
    answer = bob.post(reverse("dataset_new"), {"upload": place.split("/")[-2]})
    assert answer.status_code == 422
    assert "not here as a whole yet" in answer.content.decode()
    assert not Dataset.objects.exists()
    assert offset(bob, place) == 20


def test_several_files_are_datasets_of_their_own(bob: Client) -> None:
    ids = [sent(bob, name="a.jsonl"), sent(bob, name="b.csv.gz")]
    answer = bob.post(reverse("dataset_new"), {"upload": ids})
    assert answer["Location"] == reverse("datasets")
    assert sorted(Dataset.objects.values_list("name", flat=True)) == ["a", "b"]


def test_several_files_are_joined_when_asked(bob: Client) -> None:
    ids = [sent(bob, name=name) for name in ("z.jsonl", "a.jsonl", "Z.jsonl")]
    bob.post(reverse("dataset_new"), {"upload": ids, "together": "on", "name": "All"})
    version = Dataset.objects.get(name="All").versions.get()
    with zipfile.ZipFile(version.original_path) as archive:
        assert archive.namelist() == ["z.jsonl", "a.jsonl", "3 Z.jsonl"]
        assert {archive.read(name) for name in archive.namelist()} == {ROWS}
    assert (version.original_name, version.size) == ("3 files.zip", version.original_path.stat().st_size)
    assert version.original_sha256 == hashlib.sha256(version.original_path.read_bytes()).hexdigest()


def test_next_version_of_several_files(cast: Cast, bob: Client) -> None:
    dataset = make_dataset(cast.team)
    ids = [sent(bob, name="a.jsonl"), sent(bob, name="b.jsonl")]
    bob.post(reverse("dataset_version_new", args=[dataset.pk]), {"upload": ids})
    assert [version.original_name for version in dataset.versions.all()] == ["2 files.zip", "rows.jsonl"]


def test_page_lists_what_is_not_finished(cast: Cast, bob: Client) -> None:
    place = begin(bob, name="half.jsonl")["Location"]
    part(bob, place, 0, ROWS[:20])
    page = bob.get(reverse("dataset_new")).content.decode()
    assert "half.jsonl" in page
    assert place in page
    assert "half.jsonl" not in cast.client("alice").get(reverse("dataset_new")).content.decode()


def test_changes_need_the_token(cast: Cast) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(cast.bob)
    assert begin(client).status_code == 403
    upload = Upload.objects.create(user=cast.bob, name="x", size=3)
    upload.path.parent.mkdir(parents=True, exist_ok=True)
    upload.path.touch()
    place = reverse("upload", args=[upload.pk])
    assert part(client, place, 0, b"abc").status_code == 403
    assert client.delete(place, headers=TUS).status_code == 403
    assert upload.path.stat().st_size == 0


def test_what_nobody_goes_on_with_goes_after_a_day(bob: Client) -> None:
    fresh, old, gone = (UUID(begin(bob)["Location"].split("/")[-2]) for _ in range(3))
    long_ago = timezone.now() - timedelta(days=1, minutes=1)
    Upload.objects.filter(pk__in=[old, gone]).update(touched_at=long_ago)
    folder = Path(django_settings.FILES_DIR) / "uploads"
    (folder / str(gone)).unlink()
    stray = folder / str(uuid4())
    stray.touch()
    os.utime(stray, (0, 0))
    clean_up()
    assert [path.name for path in folder.iterdir()] == [str(fresh)]
    assert Upload.objects.get().pk == fresh
