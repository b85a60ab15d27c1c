"""Who may do what over the API: every address and method, for every person's key and without a good one."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import transaction
from django.test import Client
from django.urls import URLPattern
from django.utils import timezone

from tests.test_permission_matrix import World, fresh_world
from webapp.accounts import keys
from webapp.api import urls
from webapp.api.models import ApiFile, Batch
from webapp.api.upload_store import begin

# Answers are for: charlie (a stranger), vera (viewer), bob (member), alice (owner). One word stands for all.
PEOPLE = ("charlie", "vera", "bob", "alice")

ALL = "200"
MAKERS = "200 403 200 200"  # charlie owns the team he works in
SEEN = "404 200 200 200"  # an object of the team
MEMBERS = "404 403 200 200"

Path = Callable[[World], str]


class Form(dict[str, Any]):
    """Fields and files that are sent as multipart."""


Body = dict[str, Any] | Callable[[World], dict[str, Any]] | None
Row = tuple[str, Path, Body]  # the answers, the path, the JSON body or Form


def at(path: str) -> Path:
    return lambda world: path


def model(world: World) -> str:
    return f"models/ft:any:any:any:{world.adapter.pk.hex[:12]}"


def adapter_content(world: World) -> str:
    return f"{model(world).replace('models/', 'adapters/')}/content"


def file(world: World) -> str:
    return f"files/file-{world.spoilt.pk.hex}"


def of_upload(what: str) -> Path:
    def path(world: World) -> str:
        facts: dict[str, Any] = {"filename": "a", "purpose": "batch", "size": 1}
        upload = begin(user=world.cast.bob, team=world.cast.team, file_seconds=None, **facts)
        return f"uploads/upload_{upload.pk.hex}/{what}"

    return path


def rows() -> SimpleUploadedFile:
    return SimpleUploadedFile("rows.bin", b"x")


def of_job(what: str = "") -> Path:
    return lambda world: f"fine_tuning/jobs/ftjob-{world.job.pk.hex}{what}"


def of_checkpoint(what: str = "") -> Path:
    return lambda world: f"fine_tuning/checkpoints/ftckpt-{world.adapter.pk.hex}/permissions{what}"


def permission(world: World) -> str:
    return of_checkpoint(f"/cp_{world.share.pk.hex}")(world)


def new_job(world: World) -> dict[str, Any]:
    return {"model": world.base.name, "training_file": f"file-{world.version.pk.hex}"}


def adapter_alone(world: World) -> dict[str, Any]:
    """A model, and nothing to answer."""
    return {"model": model(world).removeprefix("models/")}


def of_batch(what: str = "") -> Path:
    def path(world: World) -> str:
        team = world.cast.team
        read = ApiFile.objects.create(team=team, purpose="batch", filename="a", size=1)
        facts: dict[str, Any] = {"endpoint": "/v1/completions", "expires_at": timezone.now()}
        batch = Batch.objects.create(team=team, created_by=world.cast.bob, input_file=read, **facts)
        return f"batches/batch_{batch.pk.hex}{what}"

    return path


NO_FILE = {"endpoint": "/v1/completions", "completion_window": "24h", "input_file_id": f"file-{'0' * 32}"}
ANNOUNCED = {"filename": "a", "purpose": "batch", "mime_type": "text/plain", "bytes": 1}

# By the address's name and method
TABLE: dict[tuple[str, str], Row] = {
    ("api_files", "GET"): (ALL, at("files"), None),
    ("api_files", "POST"): (MAKERS, at("files"), Form(purpose="batch", file=rows)),
    ("api_file", "GET"): (SEEN, file, None),
    ("api_file", "DELETE"): (MEMBERS, file, None),
    ("api_file_content", "GET"): (SEEN, lambda world: f"{file(world)}/content", None),
    ("api_uploads", "POST"): (MAKERS, at("uploads"), ANNOUNCED),
    ("api_upload_parts", "POST"): (MEMBERS, of_upload("parts"), Form(data=rows)),
    ("api_upload_complete", "POST"): ("404 403 400 400", of_upload("complete"), {"part_ids": []}),
    ("api_upload_cancel", "POST"): (MEMBERS, of_upload("cancel"), {}),
    ("api_jobs", "GET"): (ALL, at("fine_tuning/jobs"), None),
    ("api_jobs", "POST"): ("400 403 200 200", at("fine_tuning/jobs"), new_job),
    ("api_job", "GET"): (SEEN, of_job(), None),
    ("api_job_cancel", "POST"): (MEMBERS, of_job("/cancel"), None),
    ("api_job_pause", "POST"): (MEMBERS, of_job("/pause"), None),
    ("api_job_resume", "POST"): (MEMBERS, of_job("/resume"), None),
    ("api_job_events", "GET"): (SEEN, of_job("/events"), None),
    ("api_job_checkpoints", "GET"): (SEEN, of_job("/checkpoints"), None),
    ("api_permissions", "GET"): (SEEN, of_checkpoint(), None),
    ("api_permissions", "POST"): (MEMBERS, of_checkpoint(), {"project_ids": ["charlie-own"]}),
    ("api_permission", "DELETE"): (MEMBERS, permission, None),
    ("api_chat_completions", "POST"): ("404 400 400 400", at("chat/completions"), adapter_alone),
    ("api_completions", "POST"): ("404 400 400 400", at("completions"), adapter_alone),
    ("api_batches", "GET"): (ALL, at("batches"), None),
    ("api_batches", "POST"): ("404 403 404 404", at("batches"), NO_FILE),
    ("api_batch", "GET"): (SEEN, of_batch(), None),
    ("api_batch_cancel", "POST"): (MEMBERS, of_batch("/cancel"), None),
    ("api_models", "GET"): (ALL, at("models"), None),
    ("api_adapters", "POST"): ("400 403 400 400", at("adapters"), Form(file=rows)),
    ("api_adapter_content", "GET"): (SEEN, adapter_content, None),
    ("api_model", "GET"): (SEEN, model, None),
    ("api_model", "DELETE"): (MEMBERS, model, None),
}


def addresses() -> Iterator[tuple[str, str]]:
    """The name and method of everything below /v1."""
    for one in urls.urlpatterns:
        assert isinstance(one, URLPattern), "Name each address in webapp/api/urls.py itself."
        for method in one.callback.methods:
            yield str(one.name), method


def test_every_address_is_in_the_table() -> None:
    found = set(addresses())
    assert not found - set(TABLE), f"Add to TABLE who may use them: {sorted(found - set(TABLE))}"
    assert not set(TABLE) - found, f"In TABLE but nowhere else: {sorted(set(TABLE) - found)}"


def ask(world: World, name: str, method: str, key: str, client: Client | None = None) -> int:
    _, path, body = TABLE[name, method]
    body = body(world) if callable(body) else body
    headers = {"Authorization": f"Bearer {key}"}
    sent: dict[str, Any] = {"data": body, "content_type": "application/json"} if body is not None else {}
    if isinstance(body, Form):
        sent = {"data": {name: value() if callable(value) else value for name, value in body.items()}}
    client = client or Client()
    answer = getattr(client, method.lower())(f"/v1/{path(world)}", headers=headers, **sent)
    assert answer.status_code < 400 or set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert answer["x-request-id"].startswith("req_")
    return int(answer.status_code)


@pytest.mark.django_db
@pytest.mark.parametrize(("name", "method"), TABLE)
def test_who_may(name: str, method: str) -> None:
    words = TABLE[name, method][0].split()
    answers = dict(zip(PEOPLE, words * 4 if len(words) == 1 else words, strict=True))
    with fresh_world() as world:
        for who, expected in answers.items():
            user = getattr(world.cast, who)
            user.last_team = user.personal_team if who == "charlie" else world.cast.team
            user.save()
            key = keys.create(user=user, name="script")
            with transaction.atomic():
                got = ask(world, name, method, key)
                transaction.set_rollback(True)
            assert str(got) == expected, f"{method} {name} as {who}: {got}"


@pytest.mark.django_db
@pytest.mark.parametrize(("name", "method"), TABLE)
def test_nobody_without_a_key(name: str, method: str) -> None:
    """A login of the pages is none, and neither is a revoked key."""
    with fresh_world() as world:
        revoked = keys.create(user=world.cast.alice, name="old")
        keys.revoke(world.cast.alice.api_keys.get(name="old"), actor=world.cast.alice)
        for key in ("", "sk-1", "lr_000000000000_" + "x" * 43, revoked):
            assert ask(world, name, method, key, world.cast.client("alice")) == 401
