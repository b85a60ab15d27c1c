"""Base models in which an encoder reads and a decoder writes: shown as such, trained on what they can learn from."""

from pathlib import Path
from typing import Any

import pytest
from django.urls import reverse

from tests.cast import Cast
from tests.jobs.test_submit_job import answers
from tests.make import make_adapter, make_base, make_checked, make_dataset
from tests.trainer.seq2seq_bases import make_seq2seq
from trainer.base_facts import inspect_folder
from trainer.formats import read_rows
from webapp.adapters.models import BaseModel
from webapp.adapters.plain_words import snippet
from webapp.adapters.seen import seen_by
from webapp.jobs.models import Job

ROW = {"messages": [{"role": "user", "content": "Who sat?"}, {"role": "assistant", "content": "The cat."}]}


@pytest.fixture
def base(tmp_path: Path, cast: Cast) -> BaseModel:
    folder = make_seq2seq(tmp_path / "t5")
    return make_base(name="tiny t5", path=folder, facts=inspect_folder(folder))


def test_its_page_says_its_kind(base: BaseModel, cast: Cast) -> None:
    page = cast.client("vera").get(reverse("base_model", args=[base.pk]))
    assert page.status_code == 200
    assert "encoder–decoder" in page.content.decode() and "None tokens" not in page.content.decode()


def test_the_code_to_use_its_adapters_fits(base: BaseModel, cast: Cast) -> None:
    base.name = 'T5 "tiny"'
    code = snippet(make_adapter(cast.team, base), "folder")
    compile(code, "snippet", "exec")
    assert "AutoModelForSeq2SeqLM" in code and "apply_chat_template" not in code


def test_a_job_on_it_is_estimated_and_queued(base: BaseModel, cast: Cast, tmp_path: Path) -> None:
    data = answers(cast, base_model=base.pk)
    data["dataset_version"] = make_checked(make_dataset(cast.team), tmp_path, [ROW]).pk
    told = cast.client("bob").post(reverse("job_estimate"), data)
    assert told.status_code == 200 and told.context["outlook"].estimate.expected > 0
    assert cast.client("bob").post(reverse("job_new"), data).status_code == 302
    assert Job.objects.get().base_model == base


@pytest.mark.parametrize(
    ("changed", "field", "said"),
    [
        ({"data_train_on": "everything"}, "data_train_on", "trains only on its answers"),
        ({"lora_init_lora_weights": "eva"}, "lora_init_lora_weights", "eva reads one sequence"),
    ],
)
def test_what_it_cannot_do_is_said_at_the_field(
    base: BaseModel, cast: Cast, changed: dict[str, Any], field: str, said: str
) -> None:
    response = cast.client("bob").post(reverse("job_new"), answers(cast, base_model=base.pk, **changed))
    assert response.status_code == 422 and not Job.objects.exists()
    assert said in " ".join(response.context["form"].errors[field])


def test_plain_text_is_refused_before_anything_starts(base: BaseModel, cast: Cast, tmp_path: Path) -> None:
    data = answers(cast, base_model=base.pk)
    data["dataset_version"] = make_checked(make_dataset(cast.team), tmp_path, [{"text": "The cat sat."}]).pk
    response = cast.client("bob").post(reverse("job_new"), data)
    assert response.status_code == 422
    assert "these rows are plain text" in str(response.context["form"].errors)


def test_its_tokens_are_shown_with_what_it_learns(base: BaseModel, cast: Cast, tmp_path: Path) -> None:
    version = make_checked(make_dataset(cast.team), tmp_path, [ROW])
    [seen] = seen_by(base, [(1, row_of(version))])
    assert not seen.refused and seen.pieces[-1].trained and seen.pieces[-1].text == "The cat.<|im_end|>"


def row_of(version: Any) -> Any:
    return read_rows(version.rows_path, 0, 1)[0]
