"""Files over the official client: they are dataset versions, and what batches and jobs read and write."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from django.utils import timezone
from openai import OpenAI

from tests.api.conftest import Connect
from tests.api.live import LiveServer
from tests.cast import Cast
from tests.make import ROWS, make_checked, make_dataset, make_job
from webapp.api.expiry import remove_expired
from webapp.api.file_store import store_output
from webapp.api.models import ApiFile, VersionExpiry
from webapp.datasets.models import Dataset, DatasetVersion, Origin
from webapp.datasets.tasks import inspect

GOOD = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


def upload(client: OpenAI, content: bytes = GOOD, name: str = "train.jsonl", **extra: Any) -> Any:
    return client.files.create(file=(name, content), purpose=extra.pop("purpose", "fine-tune"), **extra)


def test_a_file_to_train_on_is_a_dataset_version(client: OpenAI, people: Cast) -> None:
    made = upload(client)
    version = DatasetVersion.objects.get()
    assert (made.id, made.status, made.bytes) == (f"file-{version.pk.hex}", "uploaded", len(GOOD))
    assert (made.filename, made.purpose, made.object) == ("train.jsonl", "fine-tune", "file")
    assert (version.dataset.name, version.team, version.created_by) == ("train", people.team, people.bob)
    inspect(str(version.pk))
    assert client.files.wait_for_processing(made.id, poll_interval=0.1).status == "processed"
    assert client.files.content(made.id).read() == GOOD


def test_the_same_name_again_is_the_next_version(client: OpenAI, connect: Connect, people: Cast) -> None:
    upload(client)
    upload(client)
    upload(connect("alice"))
    numbers = sorted((one.dataset.created_by.email, one.number) for one in DatasetVersion.objects.all())
    assert numbers == [("alice@example.com", 1), ("bob@example.com", 1), ("bob@example.com", 2)]
    assert Dataset.objects.filter(name="train").count() == 2


def test_bad_rows_are_told_with_their_lines(client: OpenAI, people: Cast) -> None:
    bad = b'{"messages": [{"role": "user", "content": "a"}, {"role": "robot", "content": "b"}]}\n'
    made = upload(client, GOOD + bad + b"{not json}\n")
    inspect(str(DatasetVersion.objects.get().pk))
    found = client.files.retrieve(made.id)
    assert found.status == "error"
    assert found.status_details
    assert "Line 4: messages[1].role" in found.status_details
    assert "Line 5" in found.status_details


def test_other_purposes_are_stored_as_they_are(client: OpenAI, people: Cast) -> None:
    content = b"\x00\xff not JSON\r\n"
    made = upload(client, content, "über uns.bin", purpose="user_data")
    assert (made.status, made.bytes, made.filename) == ("processed", len(content), "über uns.bin")
    assert client.files.content(made.id).read() == content
    assert not DatasetVersion.objects.exists()


@pytest.mark.parametrize("purpose", ["batch_output", "fine-tune-results", "x", "fine-tune\x00", ""])
def test_purposes_that_are_not_for_uploads(client: OpenAI, people: Cast, purpose: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        upload(client, purpose=purpose)
    assert caught.value.param == "purpose"
    assert not DatasetVersion.objects.exists()


def test_an_empty_file_is_refused(client: OpenAI, people: Cast) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        upload(client, b"")
    assert (caught.value.param, caught.value.code) == ("file", "upload_empty")


def test_files_are_listed_page_by_page(client: OpenAI, people: Cast) -> None:
    ids = [upload(client, GOOD, f"{number}.jsonl").id for number in range(3)]
    ids += [upload(client, b"x", f"{number}.bin", purpose="user_data").id for number in range(2)]
    assert [file.id for file in client.files.list(order="asc")] == ids
    assert [file.id for file in client.files.list()] == ids[::-1]
    assert [file.id for file in client.files.list(limit=2)] == ids[::-1]  # the client asks for the other pages
    assert [file.id for file in client.files.list(limit=1, order="asc", purpose="user_data")] == ids[3:]
    page = client.files.list(limit=3)
    assert (len(page.data), page.has_more) == (3, True)
    assert [file.id for file in client.files.list(after=ids[1])] == [ids[0]]
    assert client.files.list(purpose="vision").data == []


@pytest.mark.parametrize(
    ("name", "value"),
    [("limit", "0"), ("limit", "10001"), ("limit", "x"), ("order", "up"), ("after", "file-x"), ("after", "\x00")],
)
def test_a_bad_page_is_named(client: OpenAI, people: Cast, name: str, value: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.files.list(**{name: value})  # type: ignore[arg-type]  # on purpose
    assert caught.value.param == name


def test_files_of_others(client: OpenAI, connect: Connect, people: Cast) -> None:
    made = upload(client)
    stranger, viewer = connect("charlie"), connect("vera")
    assert stranger.files.list().data == []
    for ask in (stranger.files.retrieve, stranger.files.content, stranger.files.delete):
        with pytest.raises(openai.NotFoundError):
            ask(made.id)
    assert viewer.files.content(made.id).read() == GOOD
    with pytest.raises(openai.PermissionDeniedError):
        viewer.files.delete(made.id)
    with pytest.raises(openai.PermissionDeniedError):
        upload(viewer)
    assert Dataset.objects.count() == 1


def test_what_the_browser_made_is_there(client: OpenAI, people: Cast, tmp_path: Path) -> None:
    dataset = make_dataset(people.team, name="by hand")
    edited = make_checked(dataset, tmp_path, ROWS[:1])
    DatasetVersion.objects.filter(pk=edited.pk).update(origin=Origin.EDIT)
    assert {file.id for file in client.files.list()} == {f"file-{one.pk.hex}" for one in dataset.versions.all()}
    told = json.loads(client.files.content(f"file-{edited.pk.hex}").read())
    assert [one["content"] for one in told["messages"]] == ["Who are you?", "I am Lowrank."]
    dataset.delete()
    assert client.files.list().data == []


def test_deleting(client: OpenAI, people: Cast) -> None:
    first, second = upload(client), upload(client)
    other = upload(client, b"x", purpose="batch")
    for file in (first, second, other):
        assert client.files.delete(file.id).deleted
        with pytest.raises(openai.NotFoundError):
            client.files.retrieve(file.id)
    assert (Dataset.objects.count(), ApiFile.objects.count()) == (0, 0)


def test_a_file_in_use_stays(client: OpenAI, people: Cast) -> None:
    make_job(people.team)
    (file,) = client.files.list().data
    asking = client.with_options(max_retries=2)
    with pytest.raises(openai.ConflictError) as caught:
        asking.files.delete(file.id)
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert (caught.value.code, caught.value.param) == ("dataset_in_use", "file_id")
    assert "Delete that first, on its page" in caught.value.message
    assert client.files.retrieve(file.id).status == "processed"


def test_files_expire(client: OpenAI, people: Cast) -> None:
    rule: Any = {"anchor": "created_at", "seconds": 3600}
    files = [upload(client, expires_after=rule), upload(client, b"x", purpose="batch", expires_after=rule)]
    kept = upload(client, b"y", purpose="batch")
    assert [file.expires_at - file.created_at for file in files] == [3600, 3600]
    assert remove_expired() == 0
    past = timezone.now() - timedelta(seconds=1)
    VersionExpiry.objects.update(expires_at=past)
    ApiFile.objects.filter(size=1).exclude(expires_at=None).update(expires_at=past)
    assert [file.id for file in client.files.list()] == [kept.id]
    with pytest.raises(openai.NotFoundError):
        client.files.content(files[0].id)
    assert remove_expired() == 2
    assert (Dataset.objects.count(), ApiFile.objects.count()) == (0, 1)


@pytest.mark.parametrize(
    "rule", [{"anchor": "now", "seconds": 3600}, {"anchor": "created_at", "seconds": 1}, {"seconds": 9999}]
)
def test_a_bad_expiry_is_named(client: OpenAI, people: Cast, rule: Any) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        upload(client, expires_after=rule)
    assert str(caught.value.param).startswith("expires_after.")


def test_outputs_of_jobs_and_batches(client: OpenAI, people: Cast) -> None:
    made = store_output(
        team=people.team, user=None, purpose="fine-tune-results", filename="a/b.csv", chunks=[b"step\n", b"1\n"]
    )
    (file,) = client.files.list(purpose="fine-tune-results").data
    assert (file.id, file.filename, file.bytes) == (f"file-{made.pk.hex}", "b.csv", 7)
    assert client.files.content(file.id).read() == b"step\n1\n"


def test_no_file_and_no_form(live: LiveServer, client: OpenAI, people: Cast) -> None:
    headers = {"Authorization": f"Bearer {client.api_key}"}
    address = f"{live.address}/v1/files"
    assert httpx.post(address, headers=headers, json={"purpose": "batch"}).status_code == 415
    missing = httpx.post(address, headers=headers, files={"other": b"x"}, data={"purpose": "batch"})
    assert (missing.status_code, missing.json()["error"]["param"]) == (400, "file")
    broken = httpx.post(address, headers=headers | {"Content-Type": "multipart/form-data"}, content=b"x")
    assert broken.status_code == 400
    assert broken.json()["error"]["type"] == "invalid_request_error"
