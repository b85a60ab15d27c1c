"""Ids and fields that a person may not use, in forms and queries: refused, and nothing is made."""

from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.urls import reverse

from tests.cast import Cast
from tests.make import make_adapter, make_base, make_conversation, make_dataset, make_job, make_share, make_turn
from tests.test_permission_matrix import PAGE, TABLE
from tests.tiny import make_tiny_base
from webapp.adapters.models import Adapter, BaseModel, Share
from webapp.chat.models import Conversation, Turn
from webapp.datasets.models import Dataset, DatasetVersion
from webapp.jobs.forms import preset_values
from webapp.jobs.models import Job, JobStatus

SECRET = "zebra"  # in the name of everything that is foreign


@pytest.fixture
def base(cast: Cast, tmp_path: Path) -> BaseModel:
    return make_base(path=make_tiny_base(tmp_path / "base"))


@pytest.fixture
def foreign_version(cast: Cast) -> DatasetVersion:
    return make_dataset(cast.charlie.personal_team, name=f"{SECRET} rows").versions.get()


@pytest.fixture
def foreign_adapter(cast: Cast, base: BaseModel) -> Adapter:
    return make_adapter(cast.charlie.personal_team, base, name=f"{SECRET}-adapter")


def job_form(base: BaseModel, version: Any, **extra: Any) -> dict[str, Any]:
    values = {key: value for key, value in preset_values("quick").items() if value is not None and value is not False}
    chosen = {"name": "run", "base_model": base.pk, "dataset_version": version, "form_key": uuid4()}
    return values | chosen | extra


def chat_form(*targets: str) -> dict[str, Any]:
    sampling = {"temperature": "0", "top_p": "1", "max_tokens": "16", "seed": "0"}
    return {"target": targets, "message": "Hello", "system_prompt": ""} | sampling


def test_a_job_on_a_foreign_dataset(cast: Cast, base: BaseModel, foreign_version: DatasetVersion) -> None:
    response = cast.client("alice").post(reverse("job_new"), job_form(base, foreign_version.pk))
    assert response.status_code == 422
    assert SECRET.encode() not in response.content
    assert not Job.objects.exists()


def test_a_job_on_a_dataset_of_another_team_of_mine(cast: Cast, base: BaseModel) -> None:
    version = make_dataset(cast.alice.personal_team).versions.get()
    response = cast.client("alice").post(reverse("job_new"), job_form(base, version.pk))
    assert response.status_code == 422
    assert not Job.objects.exists()


@pytest.mark.parametrize("value", ["", "x", "0", str(uuid4())])
def test_a_job_on_something_that_is_not_there(cast: Cast, base: BaseModel, value: str) -> None:
    version = make_dataset(cast.team).versions.get()
    client = cast.client("alice")
    assert client.post(reverse("job_new"), job_form(base, value)).status_code == 422
    assert client.post(reverse("job_new"), job_form(base, version.pk, base_model=value)).status_code == 422
    assert not Job.objects.exists()


def test_an_estimate_for_a_foreign_dataset_says_nothing(
    cast: Cast, base: BaseModel, foreign_version: DatasetVersion
) -> None:
    response = cast.client("alice").post(reverse("job_estimate"), job_form(base, foreign_version.pk))
    assert SECRET.encode() not in response.content
    assert str(foreign_version.pk).encode() not in response.content


def test_a_job_belongs_to_its_datasets_team_whatever_is_sent(cast: Cast, base: BaseModel) -> None:
    version = make_dataset(cast.team).versions.get()
    planted = {"team": cast.charlie.personal_team.pk, "created_by": cast.charlie.pk, "id": uuid4()}
    planted |= {"status": "succeeded", "attempt_number": 7, "spec": "{}", "model_base": "/etc", "data_path": "/etc"}
    cast.client("bob").post(reverse("job_new"), job_form(base, version.pk, **planted))
    job = Job.objects.get()
    assert (job.team, job.created_by, job.status, job.attempt_number) == (cast.team, cast.bob, JobStatus.QUEUED, 0)
    assert (job.spec["model"]["base"], job.spec["data"]["path"]) == ("", "")
    assert job.pk != planted["id"]


def test_a_form_sent_twice_makes_one_job(cast: Cast, base: BaseModel) -> None:
    form = job_form(base, make_dataset(cast.team).versions.get().pk)
    client = cast.client("bob")
    places = {client.post(reverse("job_new"), form)["Location"] for _ in range(2)}
    assert len(places) == Job.objects.count() == 1


def test_a_link_to_a_new_job_names_no_foreign_dataset(cast: Cast, foreign_version: DatasetVersion) -> None:
    response = cast.client("alice").get(reverse("job_new"), {"dataset": foreign_version.pk})
    assert response.status_code == 200
    assert SECRET.encode() not in response.content


def test_a_chat_with_a_foreign_adapter(cast: Cast, base: BaseModel, foreign_adapter: Adapter) -> None:
    form = chat_form(f"base:{base.pk}", f"adapter:{foreign_adapter.pk}")
    response = cast.client("vera").post(reverse("chat"), form)
    assert response.status_code == 400
    assert SECRET.encode() not in response.content
    assert not Conversation.objects.exists()


@pytest.mark.parametrize("target", ["", "adapter:", "adapter:x", "base:0", f"base:{uuid4()}", "x" * 1000])
def test_a_chat_with_nothing_that_is_there(cast: Cast, base: BaseModel, target: str) -> None:
    assert cast.client("vera").post(reverse("chat"), chat_form(target)).status_code == 400
    assert not Conversation.objects.exists()


def test_a_conversation_is_not_turned_to_a_foreign_adapter(
    cast: Cast, base: BaseModel, foreign_adapter: Adapter
) -> None:
    found = make_conversation(cast.team, cast.vera, base)
    address = reverse("conversation_settings", args=[found.pk])
    assert cast.client("vera").post(address, chat_form(f"adapter:{foreign_adapter.pk}")).status_code == 400
    found.refresh_from_db()
    assert found.adapter_ids == []


def test_an_adapter_that_is_no_longer_shared_stops_answering(
    cast: Cast, base: BaseModel, foreign_adapter: Adapter
) -> None:
    share = make_share(foreign_adapter, cast.team)
    client = cast.client("vera")
    client.post(reverse("chat"), chat_form(f"adapter:{foreign_adapter.pk}"))
    found = Conversation.objects.get()
    share.delete()
    response = client.post(reverse("turn_new", args=[found.pk]), {"message": "And now?"})
    assert response.status_code == 409
    assert Turn.objects.count() == 1


def test_a_link_to_the_chat_names_no_foreign_adapter(cast: Cast, foreign_adapter: Adapter) -> None:
    response = cast.client("alice").get(reverse("chat"), {"adapter": foreign_adapter.pk})
    assert response.status_code == 200
    assert SECRET.encode() not in response.content


@pytest.mark.parametrize("slug", ["no-such-team", "", "../x", "x" * 500])
def test_a_share_with_nobody(cast: Cast, base: BaseModel, slug: str) -> None:
    adapter = make_adapter(cast.team, base)
    response = cast.client("bob").post(reverse("adapter_share", args=[adapter.pk]), {"team": slug})
    assert response.status_code == 422
    assert not Share.objects.exists()


def test_a_shared_adapter_stays_its_teams(cast: Cast, base: BaseModel, foreign_adapter: Adapter) -> None:
    """Who got it by a share uses it; renaming, sharing on and deleting are its own team's."""
    share = make_share(foreign_adapter, cast.team)
    client = cast.client("alice")
    assert client.get(reverse("adapter", args=[foreign_adapter.pk])).status_code == 200
    for name, data in (("rename", {"name": "mine"}), ("share", {"team": "alice-own"}), ("delete", {})):
        assert client.post(reverse(f"adapter_{name}", args=[foreign_adapter.pk]), data).status_code == 403
    assert client.post(reverse("adapter_unshare", args=[share.pk])).status_code == 403
    foreign_adapter.refresh_from_db()
    assert foreign_adapter.name == f"{SECRET}-adapter"
    assert Share.objects.count() == 1


def test_an_upload_lands_in_the_team_worked_in(cast: Cast) -> None:
    rows = b'{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n'
    planted = {"team": cast.charlie.personal_team.pk, "created_by": cast.charlie.pk, "status": "ready", "row_count": 99}
    form = {"name": "mine", "file": SimpleUploadedFile("rows.jsonl", rows)} | planted
    assert cast.client("bob").post(reverse("dataset_new"), form).status_code == 302
    made = Dataset.objects.get()
    version = made.versions.get()
    assert (made.team, made.created_by, version.status, version.row_count) == (cast.team, cast.bob, "uploaded", 0)


@pytest.mark.parametrize("name", [name for name, row in TABLE.items() if row.get == PAGE and "base" not in name])
def test_no_page_of_ones_own_names_what_is_foreign(
    cast: Cast, base: BaseModel, foreign_version: DatasetVersion, foreign_adapter: Adapter, name: str
) -> None:
    theirs = cast.charlie.personal_team
    theirs.name = f"{SECRET} team"
    theirs.save()
    make_job(theirs, version=foreign_version, base=base, name=f"{SECRET} job", status=JobStatus.RUNNING)
    make_turn(make_conversation(theirs, cast.charlie, base, title=f"{SECRET} talk"))
    response = cast.client("alice").get(reverse(name))
    assert response.status_code == 200
    assert SECRET.encode() not in response.content
