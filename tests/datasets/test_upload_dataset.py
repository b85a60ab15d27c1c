"""Uploading: a file or pasted rows become a dataset with one version, stored whole with its hash, or nothing at all."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.core.files.uploadedfile import SimpleUploadedFile
from django.urls import reverse

from tests.cast import Cast
from tests.datasets.inspected import inspect
from tests.make import make_dataset
from webapp.common.errors import UserError
from webapp.datasets import services, uploads
from webapp.datasets.models import Dataset, DatasetVersion

ROWS = b'{"instruction": "Who are you?", "output": "I am Lowrank."}\n'


def file(content: bytes = ROWS, name: str = "my_rows.jsonl") -> SimpleUploadedFile:
    return SimpleUploadedFile(name, content)


def stored_folders() -> set[Path]:
    folder = Path(django_settings.FILES_DIR) / "datasets"
    return set(folder.iterdir()) if folder.exists() else set()


def test_file_becomes_a_dataset(cast: Cast, django_capture_on_commit_callbacks: Any) -> None:
    with django_capture_on_commit_callbacks(execute=True) as callbacks:
        answer = cast.client("bob").post(reverse("dataset_new"), {"file": file(), "name": ""})
    dataset = Dataset.objects.get()
    version = dataset.versions.get()
    assert answer.status_code == 302
    assert answer["Location"] == reverse("dataset", args=[dataset.pk])
    assert (dataset.name, dataset.team, dataset.created_by) == ("my rows", cast.team, cast.bob)
    assert (version.number, version.status, version.size) == (1, "uploaded", len(ROWS))
    assert (version.original_name, version.created_by) == ("my_rows.jsonl", cast.bob)
    assert version.original_sha256 == hashlib.sha256(ROWS).hexdigest()
    assert version.original_path.read_bytes() == ROWS
    assert len(callbacks) == 1  # the doorbell


def test_pasted_rows_go_in_too(cast: Cast) -> None:
    text = '[{"instruction": "é", "output": "b"}]'
    cast.client("bob").post(reverse("dataset_new"), {"text": text, "name": "Pasted"})
    version = DatasetVersion.objects.get()
    assert (version.dataset.name, version.original_name) == ("Pasted", "pasted.jsonl")
    assert version.original_path.read_text() == text


def test_pasted_lines_end_as_they_were_written(cast: Cast) -> None:
    """A form sends every end of a line as CR LF, which is no more the person's than it is Windows'."""
    line = '{"instruction": "a", "output": "b"}'
    cast.client("bob").post(reverse("dataset_new"), {"text": f"{line}\r\n{line}\r\n"})
    version = inspect(DatasetVersion.objects.get())
    assert version.original_path.read_bytes() == f"{line}\n{line}\n".encode()
    assert version.report["repairs"] == []


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({}, "Choose a file, or paste some rows."),
        ({"text": " "}, "Choose a file, or paste some rows."),
        ({"file": file(), "text": "x"}, "There is both a file and pasted text."),
        ({"file": file(b"")}, "The file is empty."),
        ({"text": "x" * 2_000_001}, "too much to paste"),
        ({"file": file(), "name": "x" * 121}, "at most 120 characters"),
    ],
)
def test_what_cannot_be_taken_is_said_and_nothing_stored(cast: Cast, data: dict[str, Any], said: str) -> None:
    before = stored_folders()
    answer = cast.client("bob").post(reverse("dataset_new"), data)
    assert answer.status_code == 422
    assert said in answer.content.decode()
    assert not Dataset.objects.exists()
    assert stored_folders() == before


def test_script_gets_json(cast: Cast) -> None:
    client = cast.client("bob")
    bad = client.post(reverse("dataset_new"), {"file": file(b"")}, headers={"Accept": "application/json"})
    assert (bad.status_code, bad.json()) == (
        422,
        {"errors": ["The file is empty. Choose a file with at least one row."]},
    )
    good = client.post(reverse("dataset_new"), {"file": file()}, headers={"Accept": "application/json"})
    assert good.status_code == 201
    assert good.json() == {"location": reverse("dataset", args=[Dataset.objects.get().pk])}


def test_too_large_is_refused_whatever_size_is_claimed(cast: Cast, settings: Any) -> None:
    settings.MAX_UPLOAD_BYTES = 100
    before = stored_folders()
    for claimed in (101, 5):
        upload = file(b"x" * 101)
        upload.size = claimed
        with pytest.raises(UserError) as refused:
            services.upload_dataset(user=cast.bob, team=cast.team, name="large", file=upload)
        assert (refused.value.code, refused.value.status) == ("upload_too_large", 413)
    assert stored_folders() == before


def test_name_of_the_file_is_never_a_path(cast: Cast) -> None:
    dataset = services.upload_dataset(
        user=cast.bob, team=cast.team, name="x", file=file(name="../../../etc/pass\twd\u202e.jsonl")
    )
    version = dataset.versions.get()
    assert version.original_name == "passwd.jsonl"
    assert version.original_path.is_relative_to(Path(django_settings.FILES_DIR))


def test_new_version_gets_the_next_number(cast: Cast) -> None:
    dataset = make_dataset(cast.team)
    answer = cast.client("bob").post(reverse("dataset_version_new", args=[dataset.pk]), {"file": file()})
    assert answer["Location"] == f"{reverse('dataset', args=[dataset.pk])}?version=2"
    assert [version.number for version in dataset.versions.all()] == [2, 1]


def test_a_new_version_gets_a_note(cast: Cast) -> None:
    dataset = make_dataset(cast.team)
    address = reverse("dataset_version_new", args=[dataset.pk])
    assert 'name="note"' in cast.client("bob").get(address).content.decode()
    cast.client("bob").post(address, {"text": '{"text": "a"}', "note": "The rows of March"})
    assert dataset.versions.get(number=2).note == "The rows of March"


def test_files_of_a_version_that_was_not_saved_are_removed(cast: Cast) -> None:
    before = stored_folders()
    gone = Dataset(team=cast.team, name="gone")
    with pytest.raises(Dataset.DoesNotExist):
        uploads.make_version(user=cast.bob, dataset=gone, files=[file()])
    assert stored_folders() == before


@pytest.mark.parametrize(("who", "status"), [("vera", 403), ("anonymous", 302), ("alice", 200), ("bob", 200)])
def test_members_may_upload(cast: Cast, who: str, status: int) -> None:
    assert cast.client(who).get(reverse("dataset_new")).status_code == status


@pytest.mark.parametrize(("who", "status"), [("vera", 403), ("charlie", 404), ("anonymous", 302), ("bob", 302)])
def test_members_may_add_versions(cast: Cast, who: str, status: int) -> None:
    dataset = make_dataset(cast.team)
    answer = cast.client(who).post(reverse("dataset_version_new", args=[dataset.pk]), {"file": file()})
    assert answer.status_code == status
    assert dataset.versions.count() == (2 if who == "bob" else 1)


def test_sample_is_added_once(cast: Cast) -> None:
    client = cast.client("bob")
    first, second = client.post(reverse("dataset_sample")), client.post(reverse("dataset_sample"))
    assert first["Location"] == second["Location"] == reverse("dataset", args=[Dataset.objects.get().pk])
    assert cast.client("vera").post(reverse("dataset_sample")).status_code == 403
    assert client.get(reverse("dataset_sample")).status_code == 405


def test_sample_has_one_style_and_no_row_twice() -> None:
    rows = [json.loads(line) for line in services.SAMPLE.read_text().splitlines()]
    assert len(rows) >= 100
    assert len({row["instruction"] + row["input"] for row in rows}) == len({row["output"] for row in rows}) == len(rows)
    for row in rows:
        short, why, name = row["output"].split("\n")
        assert (short[:10], why[:5], name) == ("In short: ", "Why: ", "— Lowrank")
