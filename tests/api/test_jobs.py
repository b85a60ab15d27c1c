"""Fine-tuning jobs with the official client: what was asked becomes a spec, every wrong field is named."""

import csv
import json
import time
from typing import Any
from uuid import uuid4

import openai
import pytest
from django.urls import reverse
from openai import OpenAI
from openai.types.fine_tuning import FineTuningJob

from tests.adapters.elsewhere import tiny_base
from tests.api.conftest import Connect
from tests.cast import Cast
from tests.make import make_adapter, make_attempt, make_base, make_dataset, make_job, make_job_event, make_worker
from trainer.spec import TrainSpec
from webapp.adapters.models import BaseModel
from webapp.api.jobs_method import METHODS
from webapp.api.models import ApiFile
from webapp.datasets.models import DatasetVersion, VersionStatus
from webapp.jobs.claiming import claim_next
from webapp.jobs.models import Job, JobStatus
from webapp.jobs.services import retry_job


@pytest.fixture
def base(people: Cast) -> BaseModel:
    return make_base(name="Tiny Base")


@pytest.fixture
def version(people: Cast) -> DatasetVersion:
    return make_dataset(people.team, created_by=people.bob).versions.get()


def file_id(version: DatasetVersion) -> str:
    return f"file-{version.pk.hex}"


def create(client: OpenAI, version: DatasetVersion, **asked: Any) -> Any:
    return client.fine_tuning.jobs.create(**{"model": "tiny-base", "training_file": file_id(version)} | asked)


def spec_of(made: Any) -> TrainSpec:
    return Job.objects.get(pk=made.id.removeprefix("ftjob-")).train_spec


def refused(client: OpenAI, version: DatasetVersion, **asked: Any) -> dict[str, Any]:
    """The error of a request that is refused, and nothing is made."""
    with pytest.raises(openai.BadRequestError) as caught:
        create(client, version, **asked)
    assert not Job.objects.exists()
    return {"param": caught.value.param, "code": caught.value.code, "text": str(caught.value)}


def test_a_job_is_made_and_told_in_full(client: OpenAI, people: Cast, base: BaseModel, version: DatasetVersion) -> None:
    made = create(client, version, suffix="support-bot", seed=7, metadata={"ticket": "42"})
    job = Job.objects.get()
    assert made.id == f"ftjob-{job.pk.hex}"
    assert made.to_dict()["user_provided_suffix"] == "support-bot"
    assert (made.object, made.status, made.model) == ("fine_tuning.job", "queued", "tiny-base")
    assert (made.training_file, made.validation_file, made.result_files) == (file_id(version), None, [])
    assert (made.organization_id, made.seed, made.metadata) == ("red-team", 7, {"ticket": "42"})
    assert (made.error, made.finished_at, made.fine_tuned_model, made.trained_tokens) == (None, None, None, None)
    assert made.hyperparameters.to_dict() == {"n_epochs": 3, "batch_size": 8, "learning_rate_multiplier": 1}
    assert made.method.to_dict() == {
        "type": "supervised",
        "supervised": {"hyperparameters": made.hyperparameters.to_dict()},
    }
    assert (job.name, job.team, job.created_by, job.train_spec.optim.seed) == (
        "support-bot",
        people.team,
        people.bob,
        7,
    )
    assert client.fine_tuning.jobs.retrieve(made.id) == made
    page = people.client("vera").get(reverse("jobs")).content.decode()
    assert "support-bot" in page


def test_without_a_suffix_none_is_told(client: OpenAI, people: Cast, base: BaseModel, version: DatasetVersion) -> None:
    made = create(client, version)
    job = Job.objects.get()
    assert job.name == version.dataset.name
    assert made.to_dict()["user_provided_suffix"] is None
    Job.objects.update(status=JobStatus.FAILED)
    again = retry_job(user=people.bob, job=Job.objects.get(), form_key=uuid4())
    told = client.fine_tuning.jobs.retrieve(f"ftjob-{again.pk.hex}")
    assert told.to_dict()["user_provided_suffix"] is None


def test_hyperparameters_become_values_of_the_spec(client: OpenAI, base: BaseModel, version: DatasetVersion) -> None:
    given = {"n_epochs": 2, "batch_size": 4, "learning_rate_multiplier": 0.5}
    made = create(client, version, method={"type": "supervised", "supervised": {"hyperparameters": given}})
    optim = spec_of(made).optim
    assert (optim.epochs, optim.batch_size, optim.learning_rate) == (2.0, 4, 1e-4)
    assert made.hyperparameters.to_dict() == given
    older = create(client, version, hyperparameters=given | {"batch_size": "auto"})
    assert older.hyperparameters.to_dict() == given | {"batch_size": 8}
    method: Any = {"type": "supervised", "supervised": {"hyperparameters": given}}
    both = create(client, version, method=method, hyperparameters={"n_epochs": 2, "batch_size": "auto"})
    assert both.hyperparameters.to_dict() == given, "what both say, or one of them"


@pytest.mark.parametrize(("name", "value"), [("n_epochs", 3), ("batch_size", 2), ("learning_rate_multiplier", 2)])
def test_two_places_that_say_something_else_are_both_named(
    client: OpenAI, base: BaseModel, version: DatasetVersion, name: str, value: int
) -> None:
    method = {"type": "supervised", "supervised": {"hyperparameters": {name: 1}}}
    error = refused(client, version, method=method, hyperparameters={name: value})
    assert error["param"] == f"method.supervised.hyperparameters.{name}"
    assert f"`hyperparameters.{name}`" in error["text"]
    assert f"`{error['param']}`" in error["text"]


@pytest.mark.parametrize(("kind", "method"), [("dpo", "dpo"), ("kto", "kto")])
def test_preference_methods(client: OpenAI, base: BaseModel, people: Cast, kind: str, method: str) -> None:
    rows = {"dpo": "preference", "kto": "labelled"}[kind]
    version = make_dataset(people.team, report={"kind": rows}).versions.get()
    asked: Any = {"type": kind, kind: {"hyperparameters": {"beta": 0.3, "n_epochs": "auto"}}}
    made = create(client, version, method=asked)
    spec = spec_of(made)
    assert (spec.data.method, spec.preference.beta) == (method, 0.3)
    assert made.to_dict()["method"][kind]["hyperparameters"]["beta"] == 0.3
    assert spec_of(create(client, version)).data.method == method, "no other learns from such rows"


@pytest.mark.parametrize(
    ("kind", "rows", "said"),
    [
        ("dpo", "chat", "Use supervised."),
        ("supervised", "preference", "supervised learns from conversations or plain text"),
    ],
)
def test_rows_of_another_method_are_told_in_the_wires_words(
    client: OpenAI, base: BaseModel, people: Cast, kind: str, rows: str, said: str
) -> None:
    version = make_dataset(people.team, report={"kind": rows}).versions.get()
    error = refused(client, version, method={"type": kind})
    assert error["param"] == "method.type"
    assert said in error["text"]
    assert "sft" not in error["text"]
    own = refused(client, version, extra_body={"spec": {"data": {"method": METHODS[kind]}}})
    assert said.replace("supervised", "sft") in own["text"], "a spec's own words"


def test_own_values_travel_as_spec(client: OpenAI, base: BaseModel, version: DatasetVersion) -> None:
    own = {"lora": {"r": 4, "lora_alpha": "8"}, "evaluation": {"probes": ["Who are you?"]}}
    made = create(client, version, extra_body={"spec": own, "preset": "quick"})
    spec = spec_of(made)
    assert (spec.lora.r, spec.lora.lora_alpha, spec.evaluation.probes) == (4, 8.0, ("Who are you?",))
    assert spec.optim.max_steps == 60, "the preset's"
    assert made.to_dict()["spec"]["lora"]["r"] == 4


def test_a_base_that_reads_less_than_usual(client: OpenAI, version: DatasetVersion) -> None:
    make_base(name="Tiny Base", facts={"context_length": 128})
    assert spec_of(create(client, version)).data.max_seq_length == 128


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"training_file": "file-nothing"}, "training_file"),
        ({"training_file": 7}, "training_file"),
        ({"validation_file": "file-" + "0" * 32}, "validation_file"),
        ({"suffix": "x" * 65}, "suffix"),
        ({"seed": "one"}, "seed"),
        ({"seed": -1}, "seed"),
        ({"metadata": {str(n): "v" for n in range(17)}}, "metadata"),
        ({"metadata": {"key": 1}}, "metadata.key"),
        ({"integrations": [{"type": "wandb", "wandb": {"project": "p"}}]}, "integrations"),
        ({"method": {"type": "reinforcement"}}, "method.type"),
        ({"method": {"type": "magic"}}, "method.type"),
        ({"method": {"supervised": {}}}, "method.type"),
        ({"method": {"type": "dpo"}}, "method.type"),
        ({"method": {"type": "dpo", "supervised": {}}}, "method.supervised"),
        ({"hyperparameters": {"n_epochs": 0}}, "hyperparameters.n_epochs"),
        ({"hyperparameters": {"n_epochs": "many"}}, "hyperparameters.n_epochs"),
        ({"hyperparameters": {"batch_size": 2.5}}, "hyperparameters.batch_size"),
        ({"hyperparameters": {"beta": 1}}, "hyperparameters.beta"),
        (
            {"method": {"type": "supervised", "supervised": {"hyperparameters": {"learning_rate_multiplier": 0}}}},
            "method.supervised.hyperparameters.learning_rate_multiplier",
        ),
        ({"extra_body": {"spec": {"lora": {"r": 0}}}}, "spec.lora.r"),
        ({"extra_body": {"spec": {"lora": {"rank": 8}}}}, "spec.lora.rank"),
        ({"extra_body": {"spec": {"lora": 8}}}, "spec.lora"),
        ({"extra_body": {"spec": {"layers": {}}}}, "spec.layers"),
        ({"extra_body": {"spec": []}}, "spec"),
        ({"extra_body": {"spec": {"model": {"base": "/etc"}}}}, "spec.model.base"),
        ({"extra_body": {"spec": {"data": {"path": "/etc/passwd"}}}}, "spec.data.path"),
        ({"extra_body": {"spec": {"data": {"holdout_path": "/etc/passwd"}}}}, "spec.data.holdout_path"),
        ({"extra_body": {"spec": {"data": {"max_seq_length": 4096}}}}, "spec.data.max_seq_length"),
        ({"seed": 1, "extra_body": {"spec": {"optim": {"seed": 2}}}}, "spec.optim.seed"),
        ({"extra_body": {"lora": {"r": 8}}}, "lora"),
        ({"extra_body": {"preset": "huge"}}, "preset"),
    ],
)
def test_every_wrong_field_is_named(
    client: OpenAI, base: BaseModel, version: DatasetVersion, asked: dict[str, Any], param: str
) -> None:
    assert refused(client, version, **asked)["param"] == param


def test_all_issues_are_told_at_once(client: OpenAI, base: BaseModel, version: DatasetVersion) -> None:
    error = refused(client, version, extra_body={"spec": {"lora": {"r": 0}, "optim": {"schedule": "zigzag"}}})
    assert "spec.lora.r" in error["text"] and "spec.optim.schedule" in error["text"]


def test_layers_that_the_base_model_does_not_have_are_named(client: OpenAI, version: DatasetVersion) -> None:
    tiny_base()
    error = refused(client, version, model="tiny-llama", extra_body={"spec": {"lora": {"target_modules": ["q_prj"]}}})
    assert error["param"] == "spec.lora.target_modules"
    assert "The base model has no layers called q_prj. Did you mean q_proj?" in error["text"]


def test_models_that_cannot_be_trained(client: OpenAI, people: Cast, base: BaseModel, version: DatasetVersion) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        create(client, version, model="gpt-4o")
    assert (caught.value.param, caught.value.code) == ("model", "model_not_found")
    adapter = make_adapter(people.team, base)
    assert refused(client, version, model=f"ft:a:b:c:{adapter.pk.hex[:12]}")["param"] == "model"


def test_files_of_others_and_refused_ones(client: OpenAI, people: Cast, base: BaseModel) -> None:
    foreign = make_dataset(people.charlie.personal_team).versions.get()
    assert refused(client, foreign)["code"] == "file_not_found"
    errors = [{"line": 3, "field": "messages", "problem": "it is empty", "fix": "Add one.", "text": ""}]
    bad = make_dataset(people.team, name="bad", status=VersionStatus.REJECTED, report={"errors": errors})
    error = refused(client, bad.versions.get())
    assert (error["param"], error["code"]) == ("training_file", "invalid_file")
    assert "Line 3" in error["text"]
    mine = make_dataset(people.bob.personal_team, name="mine").versions.get()
    good = make_dataset(people.team, name="good").versions.get()
    assert refused(client, good, validation_file=file_id(mine))["param"] == "validation_file"


def test_viewers_make_none(connect: Connect, base: BaseModel, version: DatasetVersion) -> None:
    with pytest.raises(openai.PermissionDeniedError):
        create(connect("vera"), version)


def test_a_job_waits_for_its_files(client: OpenAI, people: Cast, base: BaseModel, version: DatasetVersion) -> None:
    aside = make_dataset(people.team, name="aside", status=VersionStatus.UPLOADED).versions.get()
    made = create(client, version, validation_file=file_id(aside))
    assert (made.status, made.validation_file) == ("validating_files", file_id(aside))
    assert claim_next(make_worker()) is None
    DatasetVersion.objects.update(status=VersionStatus.READY)
    assert client.fine_tuning.jobs.retrieve(made.id).status == "queued"
    assert claim_next(make_worker("second"))


def test_pause_resume_cancel(client: OpenAI, base: BaseModel, version: DatasetVersion) -> None:
    made = create(client, version)
    paused = client.fine_tuning.jobs.pause(made.id)
    assert (paused.status, paused.to_dict()["paused"], paused.to_dict()["shown_status"]) == ("queued", True, "paused")
    assert claim_next(make_worker()) is None
    assert client.fine_tuning.jobs.pause(made.id).id == made.id
    assert client.fine_tuning.jobs.resume(made.id).to_dict()["paused"] is False
    assert client.fine_tuning.jobs.cancel(made.id).status == "cancelled"
    for change in (client.fine_tuning.jobs.cancel, client.fine_tuning.jobs.pause, client.fine_tuning.jobs.resume):
        with pytest.raises(openai.ConflictError) as caught:
            change(made.id)
        assert caught.value.response.headers["x-should-retry"] == "false"


def test_a_retried_create_makes_one(client: OpenAI, base: BaseModel, version: DatasetVersion) -> None:
    key = {"Idempotency-Key": "once"}
    first, second = (create(client, version, extra_headers=key) for _ in range(2))
    assert first.id == second.id
    assert Job.objects.count() == 1


def test_lists_are_paged_and_filtered(client: OpenAI, people: Cast, base: BaseModel, version: DatasetVersion) -> None:
    make_job(people.charlie.personal_team, base=base)
    labels = [{"n": str(n), "0": "zero", 'q"uote': "x"} for n in range(3)]
    made = [create(client, version, metadata=one).id for one in labels]
    made.append(create(client, version).id)
    found = [one.id for one in client.fine_tuning.jobs.list(limit=2)]
    assert found == made[::-1]
    first = client.fine_tuning.jobs.list(limit=2)
    assert (first.has_more, len(first.data)) == (True, 2)

    def having(metadata: Any) -> list[str]:
        return [one.id for one in client.fine_tuning.jobs.list(metadata=metadata)]

    assert having({"n": "1"}) == [made[1]]
    assert having({"0": "zero", "n": "2"}) == [made[2]]
    assert having({'q"uote': "x", "n": "0"}) == [made[0]]
    assert having({"n": "9"}) == []
    by_null = client.get("/fine_tuning/jobs?metadata=null", cast_to=object)
    assert [one["id"] for one in by_null["data"]] == [made[3]]  # type: ignore[index]
    for wrong in ({"limit": 0}, {"after": "ftjob-nothing"}, {"after": f"ftjob-{'0' * 32}"}):
        with pytest.raises(openai.BadRequestError):
            client.fine_tuning.jobs.list(**wrong)  # type: ignore[arg-type]


def test_jobs_of_the_browser_are_there(
    connect: Connect, people: Cast, base: BaseModel, version: DatasetVersion
) -> None:
    job = make_job(people.team, base=base, version=version, name="by hand")
    wire = f"ftjob-{job.pk.hex}"
    assert connect("vera").fine_tuning.jobs.retrieve(wire).model == "tiny-base"
    assert [one.id for one in connect("alice").fine_tuning.jobs.list()] == [wire]
    for wrong in (wire, "ftjob-1", "nothing", f"ftjob-{'0' * 32}"):
        with pytest.raises(openai.NotFoundError) as caught:
            connect("charlie").fine_tuning.jobs.retrieve(wrong)
        assert caught.value.param == "fine_tuning_job_id"


def test_a_running_job_says_when_it_ends(client: OpenAI, people: Cast, base: BaseModel) -> None:
    progress = {"seconds_left": 600, "trained_tokens": 50}
    job = make_job(people.team, base=base, status=JobStatus.RUNNING, progress=progress)
    told = client.fine_tuning.jobs.retrieve(f"ftjob-{job.pk.hex}")
    assert (told.status, told.trained_tokens) == ("running", None)
    assert told.estimated_finish and abs(told.estimated_finish - time.time() - 600) < 60


def test_a_failed_job_says_why(client: OpenAI, people: Cast, base: BaseModel) -> None:
    said = {"reason": "dataset_invalid", "reason_text": "Line 4 has no answer.", "reason_fix": "Add one."}
    job = make_job(people.team, base=base, status=JobStatus.FAILED, **said)
    error = client.fine_tuning.jobs.retrieve(f"ftjob-{job.pk.hex}").error
    assert error
    assert error.to_dict() == {
        "code": "dataset_invalid",
        "message": "Line 4 has no answer. Add one.",
        "param": "training_file",
    }


def test_a_finished_job_has_a_model_and_a_table(client: OpenAI, people: Cast, base: BaseModel) -> None:
    adapter = make_adapter(people.team, base, name="support-bot")
    job = make_job(
        people.team, base=base, status=JobStatus.SUCCEEDED, adapter=adapter, progress={"trained_tokens": 900}
    )
    make_attempt(job)
    make_job_event(job, "evaluated", step=0, loss=3.0, accuracy=0.1, rows=2)
    make_job_event(job, "progress", step=1, of=2, loss=2.0)  # of a trainer that told no accuracy
    for _ in range(2):  # the last step was made again after an interruption
        make_job_event(job, "progress", step=2, of=2, loss=1.0, accuracy=0.4)
    make_job_event(job, "evaluated", step=2, loss=1.5, accuracy=0.5, rows=2)
    told = client.fine_tuning.jobs.retrieve(f"ftjob-{job.pk.hex}")
    assert (told.fine_tuned_model, told.trained_tokens) == (
        f"ft:tiny-base:red-team:support-bot:{adapter.pk.hex[:12]}",
        900,
    )
    assert client.fine_tuning.jobs.retrieve(told.id).result_files == told.result_files
    [result] = told.result_files
    assert client.files.retrieve(result).purpose == "fine-tune-results"
    table = list(csv.DictReader(client.files.content(result).text.splitlines()))
    assert [tuple(line.values()) for line in table] == [
        ("0", "", "", "3.0", "0.1"),
        ("1", "2.0", "", "", ""),
        ("2", "1.0", "0.4", "1.5", "0.5"),
    ]
    client.files.delete(result)
    assert client.fine_tuning.jobs.retrieve(told.id).result_files == []
    assert not ApiFile.objects.exists()


def test_it_is_the_wires_json(client: OpenAI, base: BaseModel, version: DatasetVersion) -> None:
    """What the client's types require is there."""
    answer = client.fine_tuning.jobs.with_raw_response.create(model="tiny-base", training_file=file_id(version))
    made = json.loads(answer.text)
    required = {name for name, field in FineTuningJob.model_fields.items() if field.is_required()}
    assert required <= made.keys()
    FineTuningJob.model_validate(made)
