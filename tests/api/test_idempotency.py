"""`Idempotency-Key`: sent twice is done once."""

import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
from django.db import connections
from django.utils import timezone
from openai import OpenAI

from tests.api.conftest import Connect
from tests.api.live import LiveServer
from tests.api.test_files import GOOD
from tests.cast import Cast
from webapp.api.expiry import remove_expired
from webapp.api.models import KeptAnswer, PartedUpload
from webapp.datasets.models import DatasetVersion

BODY = {"filename": "a", "purpose": "batch", "mime_type": "text/plain", "bytes": 1}


class Script:
    """Sends requests under a name."""

    def __init__(self, live: LiveServer, client: OpenAI) -> None:
        headers = {"Authorization": f"Bearer {client.api_key}"}
        self.http = httpx.Client(base_url=f"{live.address}/v1", headers=headers, timeout=20)

    def __call__(self, name: str = "one", path: str = "/uploads", **body: Any) -> httpx.Response:
        return self.http.post(path, headers={"Idempotency-Key": name}, **body or {"json": BODY})


@pytest.fixture
def script(live: LiveServer, client: OpenAI) -> Iterator[Script]:
    made = Script(live, client)
    yield made
    made.http.close()


def test_sent_twice_it_is_done_once(script: Script, people: Cast) -> None:
    first, second = script(), script()
    assert (first.status_code, first.json()) == (second.status_code, second.json())
    assert ("idempotent-replayed" in first.headers, second.headers["idempotent-replayed"]) == (False, "true")
    assert first.headers["x-request-id"] != second.headers["x-request-id"]
    assert PartedUpload.objects.count() == 1
    assert script("two").json()["id"] != first.json()["id"]


def test_a_name_is_a_keys_own(script: Script, live: LiveServer, connect: Connect, people: Cast) -> None:
    script()
    assert Script(live, connect("bob"))().status_code == 200
    assert PartedUpload.objects.count() == 2


def test_files_too(script: Script, people: Cast) -> None:
    form: dict[str, Any] = {"files": {"file": ("a.jsonl", GOOD)}, "data": {"purpose": "fine-tune"}}
    first, second = script(path="/files", **form), script(path="/files", **form)
    assert first.status_code == 200
    assert first.json()["id"] == second.json()["id"]
    assert DatasetVersion.objects.count() == 1
    assert (DatasetVersion.objects.get().original_path).read_bytes() == GOOD
    form["files"] = {"file": ("a.jsonl", GOOD + b"\n")}
    assert script(path="/files", **form).status_code == 422


@pytest.mark.parametrize("change", [{"json": BODY | {"bytes": 2}}, {"path": "/uploads/", "json": BODY | {"x": 1}}])
def test_something_else_under_the_same_name(script: Script, people: Cast, change: dict[str, Any]) -> None:
    script()
    response = script(**change)
    assert response.status_code == 422
    assert response.json()["error"]["code"] == "idempotency_key_reused"
    assert PartedUpload.objects.count() == 1


def test_what_failed_may_be_sent_again(script: Script, people: Cast) -> None:
    assert script(json=BODY | {"bytes": 0}).status_code == 400
    assert not KeptAnswer.objects.exists()
    assert script().status_code == 200


def test_while_the_first_is_carried_out(script: Script, people: Cast) -> None:
    script()
    KeptAnswer.objects.update(status=None)
    response = script()
    assert (response.status_code, response.headers["x-should-retry"]) == (409, "true")
    KeptAnswer.objects.update(created_at=timezone.now() - timedelta(minutes=20))  # its process was killed
    assert script().status_code == 200


def test_many_at_once(script: Script, people: Cast) -> None:
    answers: list[httpx.Response] = []
    threads = [threading.Thread(target=lambda: answers.append(script())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    connections.close_all()
    assert PartedUpload.objects.count() == 1
    assert {answer.status_code for answer in answers} <= {200, 409}
    assert len({answer.json()["id"] for answer in answers if answer.status_code == 200}) == 1


def test_after_a_day_a_name_is_free(script: Script, people: Cast) -> None:
    first = script()
    KeptAnswer.objects.update(created_at=timezone.now() - timedelta(days=1, seconds=1))
    assert script().json()["id"] != first.json()["id"]
    KeptAnswer.objects.update(created_at=timezone.now() - timedelta(days=1, seconds=1))
    remove_expired()
    assert not KeptAnswer.objects.exists()


@pytest.mark.parametrize("name", ["x" * 256, "ü\u0085".encode()])
def test_a_name_that_is_none(script: Script, people: Cast, name: Any) -> None:
    assert script(name).status_code == 400
