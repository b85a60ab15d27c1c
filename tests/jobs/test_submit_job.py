"""Submitting through the page: the form comes from the spec, its errors too, and twice is once."""

import dataclasses
import re
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.urls import reverse

from tests.cast import Cast
from tests.make import make_base, make_checked, make_dataset, make_job
from tests.tiny import make_tiny_base
from trainer.presets import PRESET_NAMES
from trainer.spec import PARTS, TrainSpec, choices_of
from webapp.accounts.models import AuditEntry
from webapp.adapters import tasks
from webapp.adapters.models import BaseStatus
from webapp.common.errors import UserError
from webapp.datasets.models import VersionStatus
from webapp.jobs import base_layers, services
from webapp.jobs.forms import FILLED_IN, JobForm, labelled, preset_values
from webapp.jobs.labels import WORDS
from webapp.jobs.models import Job, JobStatus


def answers(cast: Cast, **changed: Any) -> dict[str, Any]:
    """What the browser sends for an untouched form of a team with one dataset and one base model."""
    base = make_base(name=f"base {uuid4().hex[:6]}", facts={"context_length": 1024})
    asked = {"name": "first", "form_key": str(uuid4()), "base_model": base.pk, "dataset_version": version_of(cast)}
    values = {key: value for key, value in preset_values("balanced").items() if value is not False}
    return asked | values | changed


def version_of(cast: Cast) -> Any:
    found = cast.team.datasets.first() or make_dataset(cast.team)
    return found.versions.get().pk


def test_the_form_has_every_value_of_the_spec_and_its_limits(cast: Cast) -> None:
    form = JobForm(user=cast.bob, team=cast.team)
    for part, cls in PARTS.items():
        for item in dataclasses.fields(cls):
            if f"{part}.{item.name}" in FILLED_IN:
                continue
            field = form.fields[f"{part}_{item.name}"]
            assert field.help_text == item.metadata["option"].meaning
    rank = form.fields["lora_r"].widget.attrs
    assert (rank["min"], rank["max"]) == ("1", "512")
    assert [value for value, _ in form.fields["model_quantization"].choices] == ["none", "int8", "nf4"]
    rare = [field for _, fields in form.other_options() for field in fields]
    shown = [*form.how_much(), *form.how(), *rare]
    assert len(shown) == len({field.name for field in shown}) == len(form.fields) - 5


def test_it_works(cast: Cast) -> None:
    data = answers(cast, lora_r="24", evaluation_probes="Who?\n\n Why? ", lora_target_modules="q_proj, v_proj")
    response = cast.client("bob").post(reverse("job_new"), data)
    job = Job.objects.get()
    assert response.status_code == 302
    assert response["Location"] == reverse("job", args=[job.pk])
    assert (job.team, job.created_by, job.status, job.name) == (cast.team, cast.bob, JobStatus.QUEUED, "first")
    spec = TrainSpec.from_dict(job.spec)
    assert (spec.lora.r, spec.lora.target_modules) == (24, ("q_proj", "v_proj"))
    assert spec.evaluation.probes == ("Who?", "Why?")
    assert (spec.model.base, spec.data.path) == ("", ""), "no folder of this machine is kept"
    assert AuditEntry.objects.get(action="job.submit").actor == cast.bob


def test_lists_of_numbers_and_numbers_by_name(cast: Cast) -> None:
    data = answers(
        cast,
        lora_rank_pattern="q_proj: 4\nv_proj:8\n",
        lora_layers_to_transform="0, 1",
        lora_trainable_token_indices="7 9",
        lora_modules_to_save="norm\nlm_head",
    )
    assert cast.client("bob").post(reverse("job_new"), data).status_code == 302
    lora = TrainSpec.from_dict(Job.objects.get().spec).lora
    assert (lora.rank_pattern, lora.alpha_pattern) == ({"q_proj": 4, "v_proj": 8}, {})
    assert (lora.layers_to_transform, lora.trainable_token_indices) == ((0, 1), (7, 9))
    assert lora.modules_to_save == ("norm", "lm_head")


def test_twice_is_once(cast: Cast) -> None:
    data, client = answers(cast), cast.client("bob")
    first, second = client.post(reverse("job_new"), data), client.post(reverse("job_new"), data)
    assert first["Location"] == second["Location"]
    assert Job.objects.count() == AuditEntry.objects.filter(action="job.submit").count() == 1


def test_going_back_and_sending_the_form_again_leads_to_the_first_job(cast: Cast) -> None:
    data, client = answers(cast), cast.client("bob")
    addresses = [
        client.post(reverse("job_new"), data | {"form_key": str(uuid4())} | changed)["Location"]
        for changed in ({"name": ""}, {"name": ""}, {"name": "again"}, {"name": "again"}, {"lora_r": "24"})
    ]
    assert addresses[0] == addresses[1]
    assert addresses[2] == addresses[3]
    assert len(set(addresses)) == Job.objects.count() == 3
    Job.objects.update(status=JobStatus.SUCCEEDED)
    client.post(reverse("job_new"), data | {"form_key": str(uuid4()), "name": ""})
    assert Job.objects.count() == 4, "what has ended may be asked for again"


def test_the_key_of_somebody_else_gives_nothing_away(cast: Cast) -> None:
    data = answers(cast)
    cast.client("bob").post(reverse("job_new"), data)
    assert cast.client("alice").post(reverse("job_new"), data).status_code == 409
    assert Job.objects.count() == 1


@pytest.mark.parametrize(
    ("changed", "field", "said"),
    [
        ({"lora_r": "0"}, "lora_r", "Use at least 1."),
        ({"optim_learning_rate": "2"}, "optim_learning_rate", "Use at most 1."),
        ({"optim_max_steps": "20000000"}, "optim_max_steps", "Use at most 10,000,000."),
        ({"optim_learning_rate": "nan"}, "optim_learning_rate", "Enter a number."),
        ({"lora_target_modules": "atention"}, "lora_target_modules", "not a group of layers"),
        ({"lora_target_modules": "q_proj,(a+)+"}, "lora_target_modules", "no module name"),
        ({"lora_rank_pattern": "q_proj=8"}, "lora_rank_pattern", "One for each module, such as q_proj: 8."),
        ({"lora_layers_to_transform": "0-3"}, "lora_layers_to_transform", "Write whole numbers, such as 0, 1, 2"),
        ({"data_max_seq_length": "2048"}, "data_max_seq_length", "reads at most 1024 tokens"),
        ({"evaluation_probes": "\n".join("abcde")}, "evaluation_probes", "Too many prompts."),
        ({"optim_micro_batch_tokens": "100"}, "optim_micro_batch_tokens", "at least 512"),
        ({"model_quantization": "fp2"}, "model_quantization", "Select a valid choice"),
        ({"optim_epochs": ""}, "optim_epochs", "required"),
    ],
)
def test_issues_stand_at_their_fields(cast: Cast, changed: dict[str, str], field: str, said: str) -> None:
    response = cast.client("bob").post(reverse("job_new"), answers(cast, **changed))
    assert response.status_code == 422
    form = response.context["form"]
    assert list(form.errors) == [field]
    assert said in " ".join(form.errors[field])
    assert not Job.objects.exists()


def test_layers_that_the_base_model_does_not_have_are_told_at_their_fields(
    cast: Cast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As soon as the base model's parts are known, by the real child; until then the worker alone would say so."""
    rung: list[str] = []

    def ring(pk: UUID) -> bool:
        rung.append(str(pk))
        return len(rung) > 1  # the broker is away the first time

    monkeypatch.setattr(base_layers, "ring_for_parts", ring)
    base, client = make_base(path=make_tiny_base(tmp_path / "tiny")), cast.client("bob")
    wrong = {"lora_target_modules": "q_prj, v_proj", "lora_modules_to_save": "nrm", "lora_rank_pattern": "gate: 4"}
    data = answers(cast, base_model=base.pk, lora_layers_to_transform="0, 7", **wrong)
    for name in ("early", "too", "late"):
        assert client.post(reverse("job_new"), data | {"name": name, "form_key": str(uuid4())}).status_code == 302
    assert rung == [str(base.pk)] * 2, "once that it is heard, not for each look at the form"
    tasks.find_parts(rung[0])
    response = client.post(reverse("job_new"), data | {"name": "late", "form_key": str(uuid4())})
    assert response.status_code == 422
    errors = {field: " ".join(texts) for field, texts in response.context["form"].errors.items()}
    assert errors.keys() == {*wrong, "lora_layers_to_transform"}
    assert errors["lora_target_modules"].startswith("The base model has no layers called q_prj. Did you mean q_proj?")
    assert "down_proj, gate_proj, k_proj" in errors["lora_rank_pattern"]
    assert "no module called nrm" in errors["lora_modules_to_save"]
    assert errors["lora_layers_to_transform"].endswith("The base model's layers are 0 to 1.")
    assert re.search(r'id="id_lora_target_modules_error".*Did you mean q_proj\?', response.content.decode())
    card = client.post(reverse("job_estimate"), data).content.decode()
    assert re.search(r"as the value is wrong: .*Layers with LoRA", card)
    right = {"lora_target_modules": "q_proj", "lora_modules_to_save": "norm", "lora_rank_pattern": "q_proj: 4"}
    assert client.post(reverse("job_new"), data | right | {"lora_layers_to_transform": "1"}).status_code == 302


def test_other_values_are_called_what_the_form_calls_them(cast: Cast) -> None:
    wrong = {"lora_modules_to_save": "q_proj", "lora_target_modules": "q_proj,v_proj", "evaluation_patience": "2"}
    form = cast.client("bob").post(reverse("job_new"), answers(cast, data_holdout="0", **wrong)).context["form"]
    assert form.errors["lora_modules_to_save"][0].endswith("Name it here or in “Layers with LoRA”.")
    assert form.errors["evaluation_patience"][0].endswith("Hold rows out with “Held-out share”, or use 0.")
    label = form.fields["lora_rank_pattern"].label
    assert (
        labelled("See lora.rank_pattern, model.layers.0 and data.path.")
        == f"See “{label}”, model.layers.0 and data.path."
    )


def test_a_dataset_that_the_method_cannot_use_is_refused_at_the_method(cast: Cast, tmp_path: Path) -> None:
    data, client = answers(cast), cast.client("bob")
    pairs = make_checked(make_dataset(cast.team), tmp_path, [{"prompt": "a", "chosen": "b", "rejected": "c"}])
    data["dataset_version"] = pairs.pk
    response = client.post(reverse("job_new"), data)
    assert response.status_code == 422
    [said] = response.context["form"].errors["data_method"]
    assert said.startswith("sft learns from conversations or plain text; these rows are prompts with a chosen and a")
    assert said.endswith("Use dpo.")
    data["data_method"] = "dpo"
    assert client.post(reverse("job_estimate"), data).status_code == 200
    assert client.post(reverse("job_new"), data).status_code == 302
    assert TrainSpec.from_dict(Job.objects.get().spec).data.method == "dpo"


def test_everything_that_is_wrong_is_told_at_once(cast: Cast, tmp_path: Path) -> None:
    wrong = {"lora_r": "0", "lora_layers_to_transform": "first", "optim_epochs": "", "data_max_seq_length": "2048"}
    data = answers(cast, **wrong)
    pairs = make_checked(make_dataset(cast.team), tmp_path, [{"prompt": "a", "chosen": "b", "rejected": "c"}])
    data["dataset_version"] = pairs.pk
    response = cast.client("bob").post(reverse("job_new"), data)
    assert response.status_code == 422
    assert set(response.context["form"].errors) == {*wrong, "data_method"}


def test_another_dataset_can_be_what_is_measured_on(cast: Cast) -> None:
    aside = make_dataset(cast.team, name="aside").versions.get()
    data, client = (
        answers(cast, validation_version=aside.pk, evaluation_patience="2", data_holdout="0"),
        cast.client("bob"),
    )
    client.post(reverse("job_new"), data)
    job = Job.objects.get()
    assert (job.validation_version, job.spec["data"]["holdout_path"]) == (aside, "")
    assert "aside v1" in client.get(reverse("job", args=[job.pk])).content.decode()
    again = client.get(reverse("job_new"), {"from": str(job.pk)})
    assert again.context["form"]["validation_version"].value() == aside.pk
    foreign = make_dataset(cast.charlie.personal_team).versions.get()
    assert client.post(reverse("job_new"), answers(cast, validation_version=foreign.pk)).status_code == 422


def test_rows_that_are_still_being_checked_are_waited_for(cast: Cast) -> None:
    waiting = make_dataset(cast.team, name="new", status=VersionStatus.INSPECTING).versions.get()
    data, client = answers(cast, dataset_version=waiting.pk), cast.client("bob")
    assert "still being checked" in client.post(reverse("job_estimate"), data).content.decode()
    assert client.post(reverse("job_new"), data).status_code == 302
    assert not Job.objects.claimable().exists()
    assert "Waits for new v1 to be checked." in client.get(reverse("jobs")).content.decode()


def test_foreign_and_unready_things_cannot_be_chosen(cast: Cast) -> None:
    foreign = make_dataset(cast.charlie.personal_team).versions.get()
    waiting = make_dataset(cast.team, name="new", status=VersionStatus.REJECTED).versions.get()
    fetching = make_base(name="big", status=BaseStatus.FETCHING)
    for changed in ({"dataset_version": foreign.pk}, {"dataset_version": waiting.pk}, {"base_model": fetching.pk}):
        response = cast.client("bob").post(reverse("job_new"), answers(cast, **changed))
        assert response.status_code == 422
    assert not Job.objects.exists()


def test_extra_fields_change_nothing(cast: Cast) -> None:
    extra = {"team": cast.charlie.personal_team.pk, "status": "succeeded", "attempt_number": 7, "created_by": "x"}
    cast.client("bob").post(reverse("job_new"), answers(cast, **extra))
    job = Job.objects.get()
    assert (job.team, job.status, job.attempt_number, job.created_by) == (cast.team, JobStatus.QUEUED, 0, cast.bob)


def test_a_job_without_a_name_is_named_after_its_dataset(cast: Cast) -> None:
    for _ in range(3):
        cast.client("bob").post(reverse("job_new"), answers(cast, name=""))
    assert [job.name for job in Job.objects.order_by("created_at")] == ["capitals", "capitals 2", "capitals 3"]
    job = Job.objects.first()
    assert job and not job.is_named
    form = cast.client("bob").get(f"{reverse('job_new')}?from={job.pk}").context["form"]
    assert form["name"].value() == "", "the next one is named after it too"


@pytest.mark.parametrize("name", PRESET_NAMES)
def test_a_link_chooses_preset_dataset_and_base(cast: Cast, name: str) -> None:
    make_dataset(cast.team, name="other")
    chosen, base = make_dataset(cast.team).versions.get(), make_base()
    make_base(name="other")
    address = f"{reverse('job_new')}?preset={name}&dataset={chosen.pk}&base={base.pk}"
    form = cast.client("bob").get(address).context["form"]
    assert form["dataset_version"].value() == chosen.pk
    assert form["base_model"].value() == base.pk
    assert {key: form[key].value() for key in preset_values(name)} == preset_values(name)


def test_a_link_fills_the_form_from_a_job(cast: Cast) -> None:
    client, asked = cast.client("bob"), {"lora_r": "24", "lora_target_modules": "q_proj, v_proj", "optim_epochs": "7"}
    client.post(reverse("job_new"), answers(cast, **asked))
    Job.objects.update(status=JobStatus.FAILED)
    job = Job.objects.get()
    make_dataset(cast.team, name="newer")
    link = f"{reverse('job_new')}?from={job.pk}"
    assert link in client.get(reverse("job", args=[job.pk])).content.decode()
    form = client.get(link).context["form"]
    assert {key: str(form[key].value()) for key in asked} == asked
    assert form["name"].value() == job.name
    assert (form["dataset_version"].value(), form["base_model"].value()) == (job.dataset_version_id, job.base_model_id)
    foreign = make_job(cast.charlie.personal_team)
    assert client.get(f"{reverse('job_new')}?from={foreign.pk}").status_code == 404


@pytest.mark.parametrize("query", ["from=x", "preset=evil&dataset=1&base=x", "dataset=%00", "preset=%F0"])
def test_a_link_with_nonsense_is_a_plain_form(cast: Cast, query: str) -> None:
    make_dataset(cast.team)
    make_base()
    assert cast.client("bob").get(f"{reverse('job_new')}?{query}").status_code == 200


def test_without_a_dataset_the_page_says_what_is_missing(cast: Cast) -> None:
    assert b"A job needs a dataset" in cast.client("bob").get(reverse("job_new")).content
    make_dataset(cast.team)
    assert b"A job needs a base model" in cast.client("bob").get(reverse("job_new")).content


def test_the_estimate_follows_what_is_typed(cast: Cast) -> None:
    data = answers(cast)
    make_base(name="known")
    client = cast.client("bob")
    data["base_model"] = make_base(name="known too").pk
    small, large = (
        client.post(reverse("job_estimate"), data | {"lora_r": rank, "optim_epochs": "oops"}) for rank in ("8", "256")
    )
    assert small.context["outlook"].estimate.expected < large.context["outlook"].estimate.expected
    assert b"known too" in small.content
    assert b"Counted with the default, as the value is wrong: Epochs." in small.content
    assert not Job.objects.exists()


def test_only_members_submit(cast: Cast) -> None:
    data = answers(cast)
    assert cast.client("vera").post(reverse("job_new"), data).status_code == 403
    assert cast.client("vera").get(reverse("job_new")).status_code == 403
    assert not Job.objects.exists()


def test_services_check_what_the_form_cannot(cast: Cast) -> None:
    base, version = make_base(status=BaseStatus.FAILED), make_dataset(cast.team).versions.get()
    asked = {"user": cast.bob, "name": "x", "dataset_version": version, "spec": TrainSpec(), "form_key": uuid4()}
    with pytest.raises(UserError, match="not ready"):
        services.submit_job(base_model=base, **asked)


def test_a_broker_that_is_away_does_not_matter(
    cast: Cast, settings: Any, django_capture_on_commit_callbacks: Any
) -> None:
    from webapp.celery import app

    before = app.conf.broker_url
    app.conf.broker_url = "redis+socket:///nowhere/v.sock"
    try:
        with django_capture_on_commit_callbacks(execute=True):
            response = cast.client("bob").post(reverse("job_new"), answers(cast))
    finally:
        app.conf.broker_url = before
    assert response.status_code == 302
    assert Job.objects.get().status == JobStatus.QUEUED


def test_retry_asks_for_the_same(cast: Cast) -> None:
    old = make_job(cast.team, status=JobStatus.FAILED, reason="diverged", attempt_number=3)
    response = cast.client("bob").post(reverse("job_retry", args=[old.pk]))
    new = Job.objects.exclude(pk=old.pk).get()
    assert response["Location"] == reverse("job", args=[new.pk])
    old.refresh_from_db()
    same = ("team_id", "name", "spec", "base_model_id", "dataset_version_id")
    assert all(getattr(new, field) == getattr(old, field) for field in same)
    assert (new.status, new.attempt_number, new.reason, new.created_by) == (JobStatus.QUEUED, 0, "", cast.bob)


def test_a_double_click_on_try_again_makes_one_job(cast: Cast) -> None:
    old = make_job(cast.team, status=JobStatus.FAILED)
    client = cast.client("bob")

    def shown_key() -> str:
        found = re.search(
            r'name="form_key" value="([^"]+)"', client.get(reverse("job", args=[old.pk])).content.decode()
        )
        assert found
        return found[1]

    once = {"form_key": shown_key()}
    answers = [client.post(reverse("job_retry", args=[old.pk]), once)["Location"] for _ in range(2)]
    assert answers[0] == answers[1]
    assert Job.objects.count() == 2
    client.post(reverse("job_retry", args=[old.pk]), {"form_key": shown_key()})
    assert Job.objects.count() == 3, "a page that was loaded anew means it"


@pytest.mark.parametrize("status", [JobStatus.QUEUED, JobStatus.RUNNING, JobStatus.SUCCEEDED])
def test_only_what_went_wrong_is_tried_again(cast: Cast, status: JobStatus) -> None:
    job = make_job(cast.team, status=status)
    assert cast.client("bob").post(reverse("job_retry", args=[job.pk])).status_code == 409
    assert Job.objects.count() == 1


def test_every_choice_has_a_name_that_people_know(cast: Cast) -> None:
    form = JobForm(user=cast.bob, team=cast.team)
    for part, cls in PARTS.items():
        for item in dataclasses.fields(cls):
            words = choices_of(cls, item.name)
            if words and f"{part}.{item.name}" not in FILLED_IN:
                shown = dict(form.fields[f"{part}_{item.name}"].choices)
                assert tuple(shown) == words
                assert all(shown[word] != word for word in words if "float" not in word), item.name
    assert {name for name in WORDS if not any(hasattr(cls(), name) for cls in PARTS.values())} == set()


def test_a_number_is_told_as_it_was_given(cast: Cast) -> None:
    form = JobForm(answers(cast, lora_lora_dropout="9", optim_warmup_ratio="-0.5"), user=cast.bob, team=cast.team)
    assert form.errors["lora_lora_dropout"][0].startswith("9 is too high.")
    assert form.errors["optim_warmup_ratio"][0].startswith("-0.5 is too low.")
