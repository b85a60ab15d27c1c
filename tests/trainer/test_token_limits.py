"""What a base model cannot read is refused before its weights are loaded: tokens it lacks, prompts without room."""

from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer

from tests.tiny import CHATML, make_tiny_base
from tests.trainer.families import FAMILIES, make_family
from tests.trainer.seq2seq_bases import SEQ2SEQ, make_seq2seq
from tests.trainer.training import Training, make_spec
from trainer.adapter_layers import layers_of
from trainer.errors import TrainerError
from trainer.evaluation import PROBE_TOKENS, probe_ids
from trainer.events import Phase, Sample
from trainer.rendering import Renderer
from trainer.token_limits import check_probes

TURN = "<|turn|>"


def make_wide_tokenizer(folder: Path, *, template: str = CHATML) -> Path:
    """The tiny base, whose tokenizer has one token more than its embeddings have rows."""
    make_tiny_base(folder, template=template)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_special_tokens([AddedToken(TURN, special=True, normalized=False)])
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def refused(spec: Any, out: Path) -> TrainerError:
    training = Training(spec, out)
    with pytest.raises(TrainerError) as caught:
        training.run()
    assert caught.value.code == "user_config"
    assert "loading" not in [one.name for one in training.of(Phase)]
    return caught.value


def test_a_token_without_a_row_in_the_embeddings_is_named(rows: Path, tmp_path: Path) -> None:
    base = make_wide_tokenizer(tmp_path / "base", template=CHATML.replace("<|im_start|>", TURN))
    size = layers_of(base).modules["model.embed_tokens"]["weight"][0]
    error = refused(make_spec(base, rows), tmp_path / "out")
    text = f'Token {size} of its tokenizer, "{TURN}", is in the rows to learn from, but its embeddings have {size} rows'
    assert text in error.text and "resize_token_embeddings" in error.fix


@pytest.mark.parametrize(
    ("holdout", "where"),
    [(0.1, "the general text of evaluation.forgetting"), (0.0, None)],
    ids=["general text", "nothing reads it"],
)
def test_general_text_is_read_as_well(
    rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, holdout: float, where: str | None
) -> None:
    base = make_wide_tokenizer(tmp_path / "base")
    largest = layers_of(base).modules["model.embed_tokens"]["weight"][0]
    monkeypatch.setattr(Renderer, "plain_ids", lambda renderer, text: [5, largest])
    spec = make_spec(base, rows, data={"holdout": holdout}, optim={"max_steps": 1})
    if where:
        assert where in refused(spec, tmp_path / "out").text
    else:
        assert len(Training(spec, tmp_path / "out").run().losses) == 1


def test_a_token_that_only_a_probe_has_is_named(rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = make_wide_tokenizer(tmp_path / "base")
    largest = layers_of(base).modules["model.embed_tokens"]["weight"][0]
    monkeypatch.setattr("trainer.token_limits.probe_ids", lambda renderer, prompt: [5, largest])
    spec = make_spec(base, rows, evaluation={"probes": ["Hello"]})
    assert "is in evaluation.probes" in refused(spec, tmp_path / "out").text


def test_tokens_that_nothing_contains_are_no_mistake(rows: Path, tmp_path: Path) -> None:
    """Many published models have a tokenizer that is wider than their embeddings."""
    base = make_wide_tokenizer(tmp_path / "base")
    spec = make_spec(base, rows, optim={"max_steps": 1}, evaluation={"probes": ["Hello"]})
    assert len(Training(spec, tmp_path / "out").run().losses) == 1


@pytest.mark.parametrize("name", [*FAMILIES, *SEQ2SEQ])
def test_the_rows_of_every_kind_of_embeddings_are_known(tmp_path: Path, name: str) -> None:
    base = (make_seq2seq if name in SEQ2SEQ else make_family)(tmp_path / "base", name)
    parts = layers_of(base)
    assert parts.modules[parts.table]["weight"][0] == 384


@pytest.mark.parametrize("name", ["gpt2", "bart"])
def test_a_probe_without_room_for_its_answer_is_named(rows: Path, tmp_path: Path, name: str) -> None:
    """Learnt positions end at the context: the longest prompt that fits is answered, one token more is refused."""
    base = (make_seq2seq if name == "bart" else make_family)(tmp_path / "base", name, max_position_embeddings=256)
    renderer = Renderer.load(base)
    longest = "#" * (256 - PROBE_TOKENS - len(probe_ids(renderer, "")))
    assert len(probe_ids(renderer, longest)) + PROBE_TOKENS == 256
    parts: dict[str, Any] = {"optim": {"max_steps": 1}, "data": {"max_seq_length": 128, "holdout": 0.0}}
    fitting = Training(make_spec(base, rows, **parts, evaluation={"probes": [longest]}), tmp_path / "fits").run()
    assert [one.prompt for one in fitting.of(Sample)] == [longest, longest]
    error = refused(make_spec(base, rows, **parts, evaluation={"probes": ["Hi", f"{longest}#"]}), tmp_path / "out")
    assert error.text.startswith("evaluation.probes: Prompt 2, ")
    assert f"has {257 - PROBE_TOKENS} tokens" in error.text and "256 that the base model reads" in error.text


def test_positions_without_a_limit_take_any_probe(rows: Path, tmp_path: Path) -> None:
    base = make_seq2seq(tmp_path / "base", "t5")
    spec = make_spec(base, rows, evaluation={"probes": ["#" * 1500]})
    check_probes(spec, Renderer.load(base), base)
