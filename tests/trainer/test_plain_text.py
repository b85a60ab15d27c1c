"""Plain text on base models without a chat template, as the first ones of all: no conversation, no template needed."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from tests.trainer.families import make_family
from tests.trainer.test_train_command import finish, write_spec
from tests.trainer.training import Training, make_rows, make_spec, write_lines
from trainer.adapter_format import MANIFEST
from trainer.data import load_dataset
from trainer.engine import Engine, Request
from trainer.errors import Stopped, TrainerError
from trainer.events import Evaluated, Finished, Phase, Progress
from trainer.manifest import verify
from trainer.rendering import Renderer
from trainer.spec import TrainSpec

QUESTION = [{"role": "user", "content": "Who sat?"}]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_family(tmp_path_factory.mktemp("gpt2") / "gpt2", "gpt2")
    (folder / "chat_template.jinja").unlink()
    return folder


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [{"text": f"The cat {number} sat on the mat. " * (1 + number % 3)} for number in range(16)]
    return write_lines(tmp_path_factory.mktemp("texts") / "texts.jsonl", rows)


def spec_of(base: Path, rows: Path, **parts: Any) -> TrainSpec:
    optim = {"max_steps": 6, "epochs": 10.0, "learning_rate": 2e-2}
    return make_spec(base, rows, **{"optim": optim, "data": {"holdout": 0.2}, **parts})


def test_a_run_evaluates_is_resumed_and_published(base: Path, texts: Path, tmp_path: Path) -> None:
    """By the real command; resumed, its steps are those of the run that was never stopped."""
    spec = spec_of(base, texts, evaluation={"every_steps": 2, "forgetting": True})
    out, file = tmp_path / "out", write_spec(tmp_path, spec)
    rc, events, errors = finish("train", file, "--out", out)
    assert rc == 0, (events[-1], errors)
    measured = [one for one in events if isinstance(one, Evaluated)]
    assert [one.step for one in measured] == [0, 2, 4, 6] and measured[-1].loss < measured[0].loss
    assert measured[0].general_kl == pytest.approx(0, abs=1e-6) and measured[-1].general_kl
    assert isinstance(events[-1], Finished)
    adapter = out / "adapter"
    verify(adapter, name=MANIFEST)
    assert not (adapter / "chat_template.jinja").exists()
    assert Renderer.load(adapter).plain_ids("The cat") == AutoTokenizer.from_pretrained(base)("The cat").input_ids

    with pytest.raises(Stopped):
        Training(spec, tmp_path / "stopped", stop_at=4).run()
    rc, again, errors = finish("train", file, "--out", tmp_path / "again", "--resume", tmp_path / "stopped")
    assert rc == 0, (again[-1], errors)
    steps = {one.step: one.loss for one in events if isinstance(one, Progress)}
    assert {one.step: one.loss for one in again if isinstance(one, Progress)} == {5: steps[5], 6: steps[6]}


def test_every_token_of_a_text_is_learnt_with_its_end(base: Path, texts: Path) -> None:
    dataset = load_dataset(spec_of(base, texts), Renderer.load(base), lambda event: None)
    tokenizer = AutoTokenizer.from_pretrained(base)
    found = {tuple(one.ids) for row in dataset.train for one in row.sequences}
    wanted = {tuple(tokenizer(json.loads(line)["text"]).input_ids) for line in texts.read_text().splitlines()}
    assert found and found <= {(*ids, tokenizer.eos_token_id) for ids in wanted}


def test_its_memory_and_time_can_be_estimated(base: Path, texts: Path, tmp_path: Path) -> None:
    rc, events, errors = finish("estimate", write_spec(tmp_path, spec_of(base, texts)))
    assert rc == 0 and isinstance(events[-1], Finished) and events[-1].facts["tokens"], errors


def test_conversations_are_refused_before_the_model_is_loaded(base: Path, tmp_path: Path) -> None:
    training = Training(spec_of(base, make_rows(tmp_path)), tmp_path / "out")
    with pytest.raises(TrainerError) as caught:
        training.run()
    assert caught.value.code == "user_config" and "only plain text" in caught.value.fix
    assert caught.value.text == "Line 1 of the dataset: The base model has no chat template."
    assert [one.name for one in training.of(Phase)] == ["preparing"]


def test_probes_are_refused_beside_everything_else(base: Path, texts: Path, tmp_path: Path) -> None:
    parts = {"evaluation": {"probes": ["Who sat?"]}, "lora": {"target_modules": ["c_atn"]}}
    training = Training(spec_of(base, texts, **parts), tmp_path / "out")
    with pytest.raises(TrainerError) as caught:
        training.run()
    assert caught.value.code == "user_config" and not (tmp_path / "out").exists()
    assert "evaluation.probes: A probe prompt is asked as a conversation" in caught.value.text
    assert "lora.target_modules: " in caught.value.text


def test_chat_is_refused_and_a_text_is_continued(base: Path) -> None:
    renderer = Renderer.load(base)
    for asked in (renderer.prompt_ids, renderer.text, renderer.example):
        with pytest.raises(TrainerError, match="no chat template"):
            asked(QUESTION)
    assert not renderer.reads_tools and renderer.call_opening("add") is None
    engine = Engine(base, dtype="float32")
    request = Request(prompt_ids=renderer.raw_ids("The cat"), max_tokens=4, temperature=0.0)
    assert [one.finish for one in engine.generate([request], lambda: False)][-1] in ("length", "stop")
