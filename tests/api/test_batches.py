"""/v1/batches: a file of requests is answered in the background, and goes on where a killed worker left it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest
from django.utils import timezone
from openai import OpenAI
from openai.types import Batch as WireBatch
from pytest_django.fixtures import Settings

from tests.api.answering import Answering
from tests.api.test_chat import alone
from tests.cast import Cast
from tests.make import make_base
from tests.processes import wait_for
from tests.tiny import CONTEXT, make_tiny_base
from webapp.accounts.services import delete_team
from webapp.adapters.models import Adapter, BaseModel
from webapp.api import batch_lifecycle
from webapp.api.batch_file import ERRORS, OUTPUT, Results
from webapp.api.batch_lifecycle import MOST_ATTEMPTS, MOST_STARTS
from webapp.api.batch_run import run_batches
from webapp.api.models import ApiFile, Batch, BatchStatus
from webapp.api.names import BATCH, adapter_name, uuid_of
from webapp.common.errors import UserError

pytestmark = pytest.mark.django_db(transaction=True)
Talk = Callable[..., OpenAI]
CHAT: Any = "/v1/chat/completions"
CAT: Any = [{"role": "user", "content": "cat"}]


def line(custom_id: str, *, url: str = CHAT, **body: Any) -> dict[str, Any]:
    usual = {"model": "tiny", "max_tokens": 6, "temperature": 0} | ({"messages": CAT} if url == CHAT else {})
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": usual | body}


def start(client: OpenAI, lines: list[Any], **more: Any) -> WireBatch:
    text = "\n".join(one if isinstance(one, str) else json.dumps(one) for one in lines)
    file = client.files.create(file=("asked.jsonl", text.encode()), purpose="batch")
    asked: Any = {"endpoint": CHAT, "completion_window": "24h"} | more
    return client.batches.create(input_file_id=file.id, **asked)


def ended(client: OpenAI, batch: WireBatch) -> WireBatch:
    over = ("completed", "failed", "cancelled", "expired")
    wait_for(lambda: client.batches.retrieve(batch.id).status in over, seconds=120)
    return client.batches.retrieve(batch.id)


def rows_of(client: OpenAI, file_id: str | None) -> dict[str, Any]:
    assert file_id
    return {row["custom_id"]: row for row in map(json.loads, client.files.content(file_id).text.splitlines())}


def test_a_file_of_requests_is_answered(talk: Talk, base: BaseModel, adapter: Adapter) -> None:
    client = talk()
    asked = [line(f"plain {at}", messages=[{"role": "user", "content": "cat " * at}]) for at in range(1, 40)]
    asked += [line("adapter", model=adapter_name(adapter)), line("two", n=2), line("no model", model="none")]
    asked += [line("wrong", temperature=9), line("long", max_tokens=5000)]
    begun = start(client, asked, metadata={"kind": "night"})
    assert begun.id.startswith("batch_")
    assert begun.status in ("validating", "in_progress")
    done = ended(client, begun)
    assert done.status == "completed"
    assert done.request_counts is not None
    counts = done.request_counts
    assert (counts.total, counts.completed, counts.failed) == (44, 41, 3)
    assert done.metadata == {"kind": "night"}
    found = rows_of(client, done.output_file_id)
    assert len(found) == 41
    assert found["plain 1"]["response"]["status_code"] == 200
    said = found["adapter"]["response"]["body"]["choices"][0]["message"]["content"]
    assert said == alone(base.folder, CAT, adapter, max_tokens=6)
    assert len(found["two"]["response"]["body"]["choices"]) == 2
    wrong = rows_of(client, done.error_file_id)
    assert {name: row["response"]["body"]["error"]["code"] for name, row in wrong.items()} == {
        "no model": "model_not_found",
        "wrong": "invalid_value",
        "long": "context_length_exceeded",
    }
    assert [one.id for one in client.batches.list()] == [done.id]


def test_texts_go_on_in_a_batch_too(talk: Talk, base: BaseModel) -> None:
    one = line("text", url="/v1/completions", prompt="The cat sat")
    done = ended(talk(), start(talk(), [one], endpoint="/v1/completions"))
    body = rows_of(talk(), done.output_file_id)["text"]["response"]["body"]
    assert body["object"] == "text_completion"


def test_a_wrong_file_fails_with_its_lines(talk: Talk, base: BaseModel) -> None:
    wrong = [
        line("a"),
        "no json",
        line("a"),
        line("b", url="/v1/embeddings"),
        line("c") | {"method": "GET"},
        line("d") | {"body": 1},
        line("e", stream=True),
        {},
    ]
    done = ended(talk(), start(talk(), wrong))
    assert done.status == "failed"
    assert done.errors is not None
    assert [(one.line, one.code) for one in done.errors.data or []] == [
        (2, "invalid_json_line"),
        (3, "duplicate_custom_id"),
        (4, "mismatched_url"),
        (5, "invalid_method"),
        (6, "invalid_body"),
        (7, "invalid_body"),
        (8, "invalid_custom_id"),
    ]


def test_a_cancelled_batch_keeps_what_it_has(talk: Talk, base: BaseModel, endless: BaseModel) -> None:
    client = talk()
    begun = start(client, [line("short"), line("long", model="endless", max_tokens=60_000, logit_bias={"2": -100})])
    wait_for(lambda: Batch.objects.get().completed, seconds=120)
    client.batches.cancel(begun.id)
    done = ended(client, begun)
    assert done.status == "cancelled"
    assert done.request_counts is not None
    assert done.request_counts.completed == 1
    assert list(rows_of(client, done.output_file_id)) == ["short"]
    assert client.batches.cancel(begun.id).status == "cancelled"


def test_a_batch_whose_window_is_over_expires_with_what_it_has(talk: Talk, base: BaseModel, endless: BaseModel) -> None:
    client = talk()
    asked = [line("short"), line("wrong", temperature=9)]
    begun = start(client, [*asked, line("long", model="endless", max_tokens=60_000, logit_bias={"2": -100})])
    assert begun.expires_at == begun.created_at + 24 * 3600
    wait_for(lambda: Batch.objects.get().completed, seconds=120, why="a line is answered")
    Batch.objects.update(expires_at=timezone.now())
    done = ended(client, begun)
    assert done.status == "expired"
    assert done.expired_at
    assert (done.completed_at, done.cancelled_at, done.failed_at) == (None, None, None)
    assert done.request_counts is not None
    counts = done.request_counts
    assert (counts.total, counts.completed, counts.failed) == (3, 1, 1)
    kept = rows_of(client, done.output_file_id)
    assert [(name, row["response"]["status_code"]) for name, row in kept.items()] == [("short", 200)]
    assert list(rows_of(client, done.error_file_id)) == ["wrong"]
    with pytest.raises(openai.ConflictError, match="expired"):
        client.batches.cancel(begun.id)


def test_a_batch_that_nobody_began_in_time_expires_empty(talk: Talk, answering: Answering, base: BaseModel) -> None:
    client = talk()
    answering.worker.kill()
    try:
        begun = start(client, [line("a")])
        Batch.objects.update(expires_at=timezone.now())
    finally:
        answering.worker.start()
    done = ended(client, begun)
    assert (done.status, done.output_file_id, done.error_file_id) == ("expired", None, None)


def test_a_killed_worker_goes_on_where_it_was(
    talk: Talk, answering: Answering, base: BaseModel, endless: BaseModel
) -> None:
    """It stands when half is done: the other base model has no room while somebody reads an answer of this one."""
    client = talk()
    reading = client.chat.completions.create(model="endless", messages=CAT, logit_bias={"2": -100}, stream=True)
    assert any(chunk.choices[0].delta.content for chunk in reading)
    begun = start(client, [line(str(at), model="endless" if at < 100 else "tiny") for at in range(200)])
    wait_for(lambda: Batch.objects.get().completed == 100, every=0.01, seconds=120)
    answering.worker.kill()
    written = (Batch.objects.get().folder / OUTPUT).read_text().splitlines()
    assert len(written) == 100
    answering.worker.start()
    done = ended(client, begun)
    assert done.status == "completed"
    found = client.files.content(done.output_file_id or "").text.splitlines()
    assert len({json.loads(row)["custom_id"] for row in found}) == len(found) == 200
    assert found[:100] == written


@pytest.fixture
def broken(people: Cast, tmp_path: Path) -> BaseModel:
    """A base model that renders prompts, and whose weights fit no model."""
    folder = make_tiny_base(tmp_path / "broken")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 96}))
    return make_base(name="broken", path=folder, facts={"context_length": CONTEXT})


def test_what_always_breaks_its_worker_fails_and_harms_no_other(
    client: OpenAI, base: BaseModel, broken: BaseModel, settings: Settings
) -> None:
    settings.CHAT_DTYPE = "float32"
    poor = start(client, [line("wrong", temperature=9), line("a", model="broken")])
    other = start(client, [line("b")])
    for _ in range(MOST_ATTEMPTS + 1):  # the first one told what is wrong with a line
        assert client.batches.retrieve(poor.id).status in ("validating", "in_progress")
        with pytest.raises(RuntimeError, match="mismatched"):
            run_batches(worker="chat@here")
    assert client.batches.retrieve(other.id).status == "completed"
    run_batches(worker="chat@here")
    done = client.batches.retrieve(poor.id)
    assert (done.status, done.output_file_id) == ("failed", None)
    assert done.failed_at
    assert done.errors is not None
    (told,) = done.errors.data or []
    assert told.code == "interrupted_too_often"
    assert told.message is not None
    assert "3 attempts" in told.message and "RuntimeError" in told.message
    assert list(rows_of(client, done.error_file_id)) == ["wrong"]
    assert not batch_lifecycle.waiting()


def test_an_input_file_that_cannot_be_read_ends_the_batch(client: OpenAI, base: BaseModel) -> None:
    poor = start(client, [line("a")])
    path = ApiFile.objects.get().path
    path.unlink()
    path.symlink_to("/proc/self/mem")  # a regular file whose first byte nobody can read
    for _ in range(MOST_ATTEMPTS):
        with pytest.raises(OSError, match="Input/output"):
            run_batches(worker="chat@here")
    run_batches(worker="chat@here")
    done = client.batches.retrieve(poor.id)
    assert done.status == "failed"
    assert done.errors is not None and done.errors.data
    assert "OSError" in str(done.errors.data[0].message)
    assert not Batch.objects.get().folder.exists()


def test_what_breaks_its_worker_after_each_answer_ends_too(client: OpenAI, base: BaseModel) -> None:
    begun = start(client, [line("a")])
    pk = uuid_of(begun.id, BATCH)
    assert pk
    for answered in range(1, MOST_STARTS + 1):
        token = batch_lifecycle.claim(pk, worker="w")
        assert not batch_lifecycle.is_hopeless(pk, token)
        batch_lifecycle.count(pk, token, completed=answered, failed=0)
        assert batch_lifecycle.release_of_worker("w") == 1
    run_batches(worker="chat@here")
    done = client.batches.retrieve(begun.id)
    assert done.status == "failed"
    assert done.errors is not None and done.errors.data
    assert f"{MOST_STARTS} attempts broke off before they had answered everything" in str(done.errors.data[0].message)


def test_only_attempts_in_vain_count(client: OpenAI, base: BaseModel) -> None:
    pk = uuid_of(start(client, [line("a"), line("b")]).id, BATCH)
    assert pk
    for answered in range(1, 2 * MOST_ATTEMPTS):
        token = batch_lifecycle.claim(pk, worker="w")
        assert not batch_lifecycle.is_hopeless(pk, token)
        batch_lifecycle.count(pk, token, completed=answered, failed=0)
        assert batch_lifecycle.release_of_worker("w") == 1
    for _ in range(2 * MOST_ATTEMPTS):  # told to go each time
        batch_lifecycle.hand_back(pk, batch_lifecycle.claim(pk, worker="w"))
    for hopeless in (False, False, True):  # after the one that answered something
        token = batch_lifecycle.claim(pk, worker="w")
        assert batch_lifecycle.is_hopeless(pk, token) == hopeless
        batch_lifecycle.release_of_worker("w")
    assert Batch.objects.get().trouble == batch_lifecycle.WORKER_GONE


def test_what_cannot_be_read_of_the_results_is_asked_again(tmp_path: Path) -> None:
    whole = b'{"custom_id": "a"}\n'
    (tmp_path / OUTPUT).write_bytes(whole + b'{"custom_id": "b", \x00\xff\n[1]\n{"custom_id": "c"}\n')
    results = Results(tmp_path)
    assert results.done[OUTPUT] == {"a", "c"}
    results.add(OUTPUT, {"custom_id": "b"})
    results.close()
    assert Results(tmp_path).done[OUTPUT] == {"a", "b", "c"}
    assert sorted(one.name for one in tmp_path.iterdir()) == [ERRORS, OUTPUT]


def test_results_that_cannot_be_read_at_all_end_the_batch(client: OpenAI, base: BaseModel) -> None:
    begun = start(client, [line("a")])
    (Batch.objects.get().folder / OUTPUT).mkdir(parents=True)
    for _ in range(MOST_ATTEMPTS):  # a disk may be away for a moment
        with pytest.raises(IsADirectoryError):
            run_batches(worker="chat@here")
    run_batches(worker="chat@here")
    done = client.batches.retrieve(begun.id)
    assert done.status == "failed"
    assert done.errors is not None and done.errors.data
    (told,) = done.errors.data
    assert told.code == "results_unreadable"
    assert told.message == "What this batch has answered can be neither read nor written (IsADirectoryError)."
    assert not Batch.objects.get().folder.exists()
    assert not batch_lifecycle.waiting()


def test_results_may_be_larger_than_what_may_be_sent(
    client: OpenAI, base: BaseModel, settings: Settings, people: Cast
) -> None:
    start(client, [line("wrong", temperature=9)])
    settings.MAX_UPLOAD_BYTES = 10
    run_batches(worker="chat@here")
    assert Batch.objects.get().status == "completed"


def test_result_files_go_when_they_are_to(client: OpenAI, base: BaseModel) -> None:
    start(client, [line("wrong", temperature=9)], output_expires_after={"anchor": "created_at", "seconds": 7200})
    run_batches(worker="chat@here")
    (done,) = client.batches.list()
    file = client.files.retrieve(str(done.error_file_id))
    assert file.expires_at is not None
    assert 7190 <= file.expires_at - file.created_at <= 7200
    with pytest.raises(openai.BadRequestError) as caught:
        start(client, [line("a")], output_expires_after={"anchor": "created_at", "seconds": 60})
    assert caught.value.param == "output_expires_after.seconds"


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (BatchStatus.COMPLETED, "this batch has been completed."),
        (BatchStatus.FAILED, "this batch has failed."),
        (BatchStatus.EXPIRED, "this batch has expired."),
        (BatchStatus.FINALIZING, "its files are being written."),
    ],
)
def test_what_cannot_be_cancelled_says_why(client: OpenAI, base: BaseModel, status: BatchStatus, said: str) -> None:
    begun = start(client, [line("a")])
    Batch.objects.update(status=status)
    with pytest.raises(openai.ConflictError) as caught:
        client.batches.cancel(begun.id)
    assert caught.value.code == "batch_ended"
    assert "There is nothing left to cancel: " in caught.value.message
    assert caught.value.message.endswith(said)


def test_a_half_written_line_is_asked_again(tmp_path: Path) -> None:
    (tmp_path / OUTPUT).write_text('{"custom_id": "a"}\n{"custom_id": "b')
    results = Results(tmp_path)
    assert results.has("a")
    assert not results.has("b")
    results.add(ERRORS, {"custom_id": "b"})
    results.close()
    assert (tmp_path / OUTPUT).read_text() == '{"custom_id": "a"}\n'
    assert Results(tmp_path).failed == 1


@pytest.mark.parametrize(
    ("change", "param", "kind"),
    [
        ({"endpoint": "/v1/embeddings"}, "endpoint", openai.BadRequestError),
        ({"completion_window": "1h"}, "completion_window", openai.BadRequestError),
        ({"input_file_id": "file-00000000000000000000000000000000"}, "input_file_id", openai.NotFoundError),
        ({"metadata": {"a": 1}}, "metadata.a", openai.BadRequestError),
    ],
    ids=str,
)
def test_what_cannot_be_names_its_field(
    client: OpenAI, change: dict[str, Any], param: str, kind: type[openai.APIStatusError]
) -> None:
    file = client.files.create(file=("asked.jsonl", b"{}"), purpose="batch")
    asked = {"endpoint": CHAT, "completion_window": "24h", "input_file_id": file.id} | change
    with pytest.raises(kind) as caught:
        client.post("/batches", body=asked, cast_to=object)
    assert caught.value.param == param


def test_files_in_use_stay_and_viewers_make_none(connect: Callable[..., OpenAI]) -> None:
    begun = start(connect("bob"), [line("a")])
    with pytest.raises(openai.ConflictError, match="the batch"):
        connect("bob").files.delete(begun.input_file_id)
    Batch.objects.update(status=BatchStatus.COMPLETED)
    with pytest.raises(openai.PermissionDeniedError):
        connect("vera").batches.create(input_file_id=begun.input_file_id, endpoint=CHAT, completion_window="24h")
    with pytest.raises(openai.NotFoundError):
        connect("charlie").batches.retrieve(begun.id)
    assert connect("bob").files.delete(begun.input_file_id).deleted
    assert connect("bob").batches.retrieve(begun.id).input_file_id == begun.input_file_id


def test_a_team_goes_with_its_batches_once_it_has_no_files(client: OpenAI, people: Cast) -> None:
    file = client.files.retrieve(start(client, [line("a")]).input_file_id)
    Batch.objects.update(status=BatchStatus.COMPLETED)
    with pytest.raises(UserError, match="still owns"):
        delete_team(team=people.team, actor=people.alice)
    client.files.delete(file.id)
    delete_team(team=people.team, actor=people.alice)
    assert not Batch.objects.exists()
