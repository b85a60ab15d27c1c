"""Adapters that scripts bring: by the official client's own requests, and by the command line."""

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import torch
from openai import OpenAI

from tests.adapters.elsewhere import (
    CONFIG,
    WEIGHTS,
    adapter_folder,
    changed_config,
    files_of,
    tarred,
    tiny_base,
    zipped,
)
from tests.api.conftest import Connect
from tests.api.test_command_line import Lowrank, good, lowrank, surroundings
from tests.cast import Cast
from tests.make import make_adapter
from tests.trainer.adapters import load_with_peft
from trainer.rendering import Renderer
from webapp.adapters.models import Adapter, BaseModel
from webapp.api.models import ApiFile
from webapp.api.names import FILE, adapter_name, wire_id

pytestmark = pytest.mark.django_db(transaction=True)
__all__ = ["lowrank", "surroundings"]  # fixtures that come from the command line's tests
FORM = {"Content-Type": "multipart/form-data"}
Parts = list[tuple[str, tuple[str, bytes]]]


@pytest.fixture
def base(people: Cast) -> BaseModel:
    return tiny_base()


def archive() -> tuple[str, bytes]:
    return "My style.tar.gz", tarred(files_of(adapter_folder()))


def send(client: OpenAI, *parts: tuple[str, bytes], headers: dict[str, str] | None = None, **fields: str) -> Any:
    """As the reference shows it: the official client's own way to addresses that it does not know."""
    files: Parts = [("file", part) for part in parts]
    options: Any = {"headers": FORM | (headers or {})}
    return client.post("/adapters", cast_to=httpx.Response, body=fields, files=files or None, options=options).json()


def test_an_adapter_becomes_a_model(client: OpenAI, people: Cast, base: BaseModel) -> None:
    made = send(client, archive())
    adapter = Adapter.objects.get()
    assert (adapter.team, adapter.created_by, adapter.name) == (people.team, people.bob, "My style")
    assert made["id"] == adapter_name(adapter)
    assert (made["object"], made["name"], made["base_model"]) == ("adapter", "My style", "tiny-llama")
    assert (made["r"], made["lora_alpha"], made["target_modules"]) == (4, 8, ["q_proj", "v_proj"])
    assert (made["imported_from"], made["is_new"]) == ("My style.tar.gz", True)
    assert made["url"].endswith(adapter.get_absolute_url())
    model: Any = client.models.retrieve(made["id"])
    assert (model.parent, model.root) == ("tiny-llama", "Tiny-Llama")
    assert made["id"] in [one.id for one in client.models.list()]
    packed = client.get(f"/adapters/{made['id']}/content", cast_to=httpx.Response).content
    with zipfile.ZipFile(io.BytesIO(packed)) as opened:
        assert opened.read(f"my-style/{WEIGHTS}") == files_of(adapter_folder())[WEIGHTS]


def test_the_same_again_is_there_already(client: OpenAI, base: BaseModel) -> None:
    first = send(client, archive())
    files = files_of(adapter_folder())
    again = send(client, (CONFIG, files[CONFIG]), (WEIGHTS, files[WEIGHTS]), name="Another")
    assert again == first | {"is_new": False}


def test_it_answers_as_plain_peft_does(talk: Callable[..., OpenAI], people: Cast) -> None:
    base = tiny_base("tiny", facts={"context_length": 512})
    client, ids = talk(), [5, 9, 7]
    made = send(client, archive(), base_model="tiny")
    done = client.completions.create(model=made["id"], prompt=ids, max_tokens=8, temperature=0)
    prompt = torch.tensor([ids])
    with torch.inference_mode():
        plain = load_with_peft(base.folder, adapter_folder()).generate(
            input_ids=prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=8, do_sample=False
        )
    assert done.choices[0].text == Renderer.load(base.folder).decode(plain[0, 3:].tolist())
    alone = client.completions.create(model="tiny", prompt=ids, max_tokens=8, temperature=0)
    assert alone.choices[0].text != done.choices[0].text


def test_a_file_that_was_sent_before(client: OpenAI, connect: Connect, people: Cast, base: BaseModel) -> None:
    sent = client.files.create(file=archive(), purpose="user_data")
    made = send(client, file_id=sent.id, name="Style")
    assert (made["name"], made["imported_from"]) == ("Style", "My style.tar.gz")
    foreign = connect("charlie").files.create(file=archive(), purpose="user_data")
    for wrong in (foreign.id, wire_id(FILE, people.team.pk), "file-x"):
        with pytest.raises(openai.NotFoundError) as caught:
            send(client, file_id=wrong)
        assert caught.value.param == "file_id"


def test_a_request_that_is_sent_twice_is_carried_out_once(client: OpenAI, base: BaseModel) -> None:
    """Of several files under one name all count."""
    files, key = files_of(adapter_folder()), {"Idempotency-Key": "once"}
    parts = [(CONFIG, files[CONFIG]), (WEIGHTS, files[WEIGHTS])]
    first = send(client, *parts, headers=key)
    assert send(client, *parts, headers=key) == first  # the same answer, which says that it is new
    with pytest.raises(openai.UnprocessableEntityError, match="Another request was sent with this"):
        send(client, (CONFIG, changed_config(adapter_folder(), lora_alpha=1)), parts[1], headers=key)


REFUSED: list[tuple[dict[str, Any], str, str, str]] = [
    ({"data": b"no"}, "file", "import_refused", "neither a ZIP nor a TAR archive"),
    ({"config": {"peft_type": "IA3"}}, "file", "import_refused", "an adapter of the kind IA3"),
    (
        {"config": {"base_model_name_or_path": "x/y"}},
        "base_model",
        "import_base_unknown",
        "no base model of this server",
    ),
    ({"base_model": "none"}, "base_model", "model_not_found", "`none` does not exist"),
    ({"name": "x" * 121}, "name", "invalid_value", "more than 120 characters"),
    ({"name": "a\nb"}, "name", "invalid_value", "cannot be shown"),
    ({"file_id": "file-1"}, "file_id", "invalid_value", "cannot be sent together"),
]


@pytest.mark.parametrize(("asked", "param", "code", "text"), REFUSED)
def test_what_is_refused_names_its_field(
    asked: dict[str, Any], param: str, code: str, text: str, client: OpenAI, base: BaseModel
) -> None:
    fields = dict(asked)
    config = changed_config(adapter_folder(), **fields.pop("config", {}))
    data = fields.pop("data", zipped(files_of(adapter_folder()) | {CONFIG: config}))
    with pytest.raises(openai.APIStatusError) as caught:
        send(client, ("a.zip", data), **fields)
    assert (caught.value.param, caught.value.code) == (param, code)
    assert text in str(caught.value)
    assert not Adapter.objects.exists()


def test_an_adapter_is_no_base_model_and_no_file_is_nothing(client: OpenAI, people: Cast, base: BaseModel) -> None:
    name = adapter_name(make_adapter(people.team, base))
    with pytest.raises(openai.BadRequestError, match="must be a base model"):
        send(client, archive(), base_model=name)
    with pytest.raises(openai.BadRequestError, match="`file` is missing"):
        send(client, name="x")
    with pytest.raises(openai.APIStatusError, match="multipart/form-data"):
        client.post("/adapters", cast_to=httpx.Response, body={"name": "x"})


# The command line


def test_pushed_and_pulled_it_stays_byte_for_byte(
    lowrank: Lowrank, people: Cast, base: BaseModel, tmp_path: Path
) -> None:
    name = good(lowrank("adapters", "push", adapter_folder(), "--name", "My style"))
    adapter = Adapter.objects.get()
    assert (name, adapter.name, adapter.imported_from) == (adapter_name(adapter), "My style", "adapter-1.zip")
    assert not ApiFile.objects.exists()  # it was only on its way
    pulled = tmp_path / good(lowrank("adapters", "pull", name))
    assert pulled.name == "my-style"
    own = people.bob.personal_team.slug
    second = good(lowrank("adapters", "push", pulled, "--team", own))
    assert second != name
    again = tmp_path / good(lowrank("adapters", "pull", second, "--out", "again", "--team", own))
    assert files_of(again) == files_of(pulled)
    assert files_of(again)[WEIGHTS] == files_of(adapter_folder())[WEIGHTS]


def test_what_is_there_already_is_said(lowrank: Lowrank, base: BaseModel) -> None:
    first = good(lowrank("adapters", "push", adapter_folder()))
    done = lowrank("adapters", "push", adapter_folder(), "--json")
    assert json.loads(good(done)) | {"id": first, "is_new": False} == json.loads(done.stdout)
    told = lowrank("adapters", "push", adapter_folder())
    assert good(told) == first
    assert "was there already" in told.stderr


def test_an_archive_and_a_base_model_by_name(lowrank: Lowrank, base: BaseModel, tmp_path: Path) -> None:
    config = changed_config(adapter_folder(), base_model_name_or_path="x/y")
    (tmp_path / "a.zip").write_bytes(zipped(files_of(adapter_folder()) | {CONFIG: config}))
    done = lowrank("adapters", "push", "a.zip")
    assert (done.returncode, done.stdout) == (1, "")
    assert "The adapter was made for x/y, which is no base model of this server." in done.stderr
    assert not ApiFile.objects.exists()
    good(lowrank("adapters", "push", "a.zip", "--base", "tiny-llama"))
    assert Adapter.objects.get().base_model == base


def test_who_may_not_is_told(lowrank: Lowrank, people: Cast, base: BaseModel) -> None:
    people.team.memberships.filter(user=people.bob).update(role="viewer")
    done = lowrank("adapters", "push", adapter_folder())
    assert done.returncode == 1
    assert "Your role in this team does not allow this." in done.stderr
